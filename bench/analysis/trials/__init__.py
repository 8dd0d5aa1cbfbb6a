"""One configuration of trials: what is equal, what it is called, what it came to."""
