"""Replays a data set through Kafka as its users would, and evaluates the scores that come back."""
