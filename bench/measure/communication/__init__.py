"""What a trial says of the link between its devices."""
