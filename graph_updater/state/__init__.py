"""Everything known of users and items: histories, counts, published embeddings, and its copy for snapshots."""
