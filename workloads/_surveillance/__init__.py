"""Parts of the surveillance workload: frames with boxes, net, cost and memory, precision."""
