"""How tensors live in a file: coded in groups (additive codes, lattice) or kept. Knows nothing of models or files."""
