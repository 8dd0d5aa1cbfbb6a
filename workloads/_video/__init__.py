"""Parts of the video workload."""
