"""Trials of several processes: the agent, a rank, and the probe of a real link."""
