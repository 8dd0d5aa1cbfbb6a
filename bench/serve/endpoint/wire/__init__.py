"""One request to an endpoint: connection, answer, events, and what the server takes."""
