"""Parts of the llm workload: text, net, decoding, stages, cost and memory."""
