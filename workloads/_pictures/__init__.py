"""Pictures in files, as several workloads read them."""
