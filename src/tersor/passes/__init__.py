"""Passes: what is done to a network before it is coded (pruning, merging, factorization, low precision), in a chain."""
