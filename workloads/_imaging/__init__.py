"""Parts of the imaging workload: data, net, cost and memory."""
