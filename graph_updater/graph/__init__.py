"""The graph and its embeddings: adjacency, residual push, base embeddings."""
