"""Pipeline-parallel steps, simulated from their stages."""
