"""The models and what they read: LightGCN, the exit transformer, the prompt, calibration, the bundle on disk."""
