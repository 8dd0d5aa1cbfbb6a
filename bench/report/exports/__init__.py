"""Results in the formats of other tools, made of the same configurations and figures."""
