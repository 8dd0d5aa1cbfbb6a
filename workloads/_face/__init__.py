"""Parts of the face workload: folders of identities, net, cost and memory."""
