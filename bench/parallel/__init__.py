"""A workload over several ranks: how it is laid out, and what is done about a narrow link."""
