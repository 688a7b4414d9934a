"""Additive quantization: a vector as the sum of one codeword from each of M codebooks, with the rate in the search.

Knows nothing of models or files; torch tensors on any device.
"""
