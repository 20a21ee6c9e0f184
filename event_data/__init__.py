"""Event logs to train on, replay and benchmark with: readers of public data sets, and a synthetic one."""
