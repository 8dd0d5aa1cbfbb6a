"""The client of a server of tokens: from a schedule to what became of each request."""
