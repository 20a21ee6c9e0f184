"""LightGCN, the exit transformer, its prompts, features and calibration, and the model bundle on disk."""
