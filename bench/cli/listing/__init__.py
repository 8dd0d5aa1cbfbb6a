"""`bench list`: workloads, chips, links and recipes; the catalogue in a file of its own."""
