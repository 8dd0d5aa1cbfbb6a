"""An inference phase of a workload that serves, on a device or in simulated time."""
