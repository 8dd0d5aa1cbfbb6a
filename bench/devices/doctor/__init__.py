"""What may spoil a measurement on this machine."""
