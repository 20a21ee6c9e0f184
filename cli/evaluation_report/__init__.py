"""One HTML page that tells how good a bundle is, for readers who know neither the model nor the paper behind it."""
