"""Costs of a model on this machine: parameters, FLOPs and latency."""
