"""What training asks of a device over what inference asks, like for like."""
