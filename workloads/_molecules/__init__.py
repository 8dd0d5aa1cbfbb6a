"""Private parts of the molecules workload."""
