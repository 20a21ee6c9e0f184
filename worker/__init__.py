"""Scores impression requests within their latency budget."""
