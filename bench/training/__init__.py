"""Matching, losses and the training loop: the same for every method."""
