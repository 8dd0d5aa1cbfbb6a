"""Devices as torch shows them: finding, probing, driving and their roof."""
