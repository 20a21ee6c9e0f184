"""Early-exit inference over packed batches."""
