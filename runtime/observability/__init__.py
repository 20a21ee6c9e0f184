"""What a program shows of itself: logs, metrics, readiness, HTTP status, and the watchdog for stalled consumers."""
