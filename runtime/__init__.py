"""Plumbing without domain knowledge: settings, Kafka, offsets, deadlines, snapshots, life cycle, telemetry."""
