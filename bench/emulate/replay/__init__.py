"""What a step did on the link, and what it would take on another."""
