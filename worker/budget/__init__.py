"""What the latency budget buys: exit threshold, admission, the time kept back for delivery. Plain numbers only."""
