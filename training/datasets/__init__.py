"""Readers of public data sets, and the event log they all end in."""
