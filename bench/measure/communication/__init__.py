"""What a trial reports on the link between its devices."""
