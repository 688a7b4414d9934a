"""Ways out: ONNX graphs that decode their weights themselves, and programs of torch.export that do."""
