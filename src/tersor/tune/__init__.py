"""Tuning: networks whose parameters are codebooks, scales and kept tensors."""
