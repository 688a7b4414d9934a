"""Streams of symbols to bytes and back: integer frequency tables, entropy coding, checksummed sections, the container.

Knows nothing of tensors, models or codebooks. No floating point takes part in decoding.
"""
