"""Workloads: what is run. One public module each; shared parts start with an underscore."""
