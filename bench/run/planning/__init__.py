"""From flags to a plan."""
