"""Peers: what a data scientist would fit in an afternoon, on the same split and knowing the same events."""
