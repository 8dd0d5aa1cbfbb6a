"""Inference as users meet it: requests that come when they come, and wait for one another."""
