"""Published claims: what was printed, what would test it, and the verdict that follows."""
