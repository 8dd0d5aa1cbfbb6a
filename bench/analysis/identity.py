"""What makes trials comparable, and which figures are believable: shared by all that groups rows.

Constants only, so that an export of a small file imports neither pandas nor numpy.
"""

IDENTITY = (
    "workload",
    "workload_version",
    "config_hash",
    "mode",
    "link",
    "parallel",
    "layout",
    "device_count",
    "mitigation",
    "grad_accum",
    "bucket_bytes",
    "schedule",
    "dtype",
)
"""What must be equal for two groups to be compared."""
LEAST, MOST = 1e-60, 1e60
"""Figures outside are damaged cells: nothing measured here is that small or large."""
