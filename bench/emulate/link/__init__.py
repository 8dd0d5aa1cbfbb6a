"""The modelled link itself, on a CPU and on an accelerator."""
