"""Plumbing without domain knowledge: settings, Kafka, delivery, snapshots, lifecycle, telemetry."""
