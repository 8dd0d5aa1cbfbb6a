"""Parts of the pathology workload."""
