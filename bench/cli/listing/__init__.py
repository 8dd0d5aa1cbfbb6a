"""`bench list`: workloads, chips, links and recipes, each kind in a file of its own."""
