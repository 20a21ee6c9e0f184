"""Plays a data set through Kafka as its users would, and judges the scores that come back."""
