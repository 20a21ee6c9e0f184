"""One script per question; each prints JSON and draws its plot."""
