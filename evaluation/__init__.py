"""How good scores are, on whatever they were made: metrics, and the baseline to beat."""
