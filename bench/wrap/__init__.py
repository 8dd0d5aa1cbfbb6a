"""The user's own program in a trial process: start hook, marks of steps, virtual ranks."""
