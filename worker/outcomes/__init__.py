"""What became of the scores: live AUC and calibration, from the interactions that follow them."""
