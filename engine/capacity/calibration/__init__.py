"""Small graphs that show how fast a CPU runs what the ONNX engine's models are made of."""
