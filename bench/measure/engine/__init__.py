"""What does the steps: a workload on a torch device, or on the fake one."""
