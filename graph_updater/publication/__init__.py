"""Publishing state changes: batches awaiting confirmation, leader election, transactions."""
