"""What torch sees on this machine: detection, adapters, telemetry, energy, roofs."""
