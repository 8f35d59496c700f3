"""Models as two ONNX graphs: written with PyTorch, run by onnxruntime without it."""
