"""From a request to a plan of trials to rows: order, retries, resume, progress."""
