"""From an event log to a model bundle."""
