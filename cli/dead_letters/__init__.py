"""`exitstream dead-letters`: list what was refused, show one, replay after a fix."""
