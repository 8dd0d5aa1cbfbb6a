"""Private parts of the driving workload."""
