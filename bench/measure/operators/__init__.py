"""What a step consists of: operators counted and timed."""
