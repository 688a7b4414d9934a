"""Checkpoints larger than memory: coded chunk by chunk, by many threads and processes, and resumed after a break."""
