"""Trains, calibrates and evaluates a model bundle from an event log."""
