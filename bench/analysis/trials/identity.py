"""What makes trials comparable, and which figures are believable: the one definition of equal.

Trials repeat one another when `IDENTITY` is equal. Configurations are set against each other when
`TERMS` are equal but for what is compared: the link, the phase, the number of devices, the device.
"""

WORKLOAD = (
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
"""What was run, whatever it was run on and over however many devices."""
MITIGATION = ("mitigation", "grad_accum", "bucket_bytes", "schedule")
"""What can be done about a narrow link without another link."""
LAYOUT = ("mode", "link", "parallel", "layout", "device_count", *MITIGATION)
"""How the work was laid out over devices, over what, and how much of that is a model."""
DEVICE = ("device_type", "device_name")
TERMS = (*WORKLOAD, "chip_limit", *LAYOUT, *DEVICE)
"""What may be distinguished or left out when configurations are set against each other."""
IDENTITY = ("workload", "workload_version", "config_hash", "dtype", *LAYOUT, *DEVICE)
"""What trials that repeat one another have in common; the hash covers every flag."""
LEAST, MOST = 1e-60, 1e60
"""Figures outside are damaged cells: nothing measured here is that small or large."""
