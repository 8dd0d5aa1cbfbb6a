"""What makes trials comparable, and which figures are believable: shared by all that groups rows.

Constants only, so that an export of a small file imports neither pandas nor numpy.
"""

LAYOUT = (
    "mode",
    "link",
    "parallel",
    "layout",
    "device_count",
    "mitigation",
    "grad_accum",
    "bucket_bytes",
    "schedule",
)
"""How the work was spread over devices, over what, and how much of that is a model."""
IDENTITY = ("workload", "workload_version", "config_hash", *LAYOUT, "dtype")
"""What must be equal for two groups to be compared."""
CONFIGURATION = (
    "workload",
    "workload_version",
    "scenario",
    "size",
    "params_json",
    "dtype",
    "data",
    "compile",
    "compile_mode",
    "channels_last",
)
"""What was run, whatever it was run on and however it was spread."""
DEVICE = ("device_type", "device_name")
LEAST, MOST = 1e-60, 1e60
"""Figures outside are damaged cells: nothing measured here is that small or large."""
