"""Keeps LightGCN embeddings fresh per interaction and publishes what moved."""
