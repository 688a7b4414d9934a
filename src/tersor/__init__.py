"""tersor: any trained neural network as one compact file, and back."""
