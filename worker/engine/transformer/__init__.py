"""The decoder over packed batches: layers, attention, weights, the prefix cache. Executes; decides nothing."""
