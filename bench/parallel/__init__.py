"""A workload over several ranks. Nothing is here yet: every trial runs on one device."""
