"""Costs that nets of several workloads share: layers of transformers, convolutions."""
