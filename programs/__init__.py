"""What the programs agree on: the topics between them and the settings file that they share."""
