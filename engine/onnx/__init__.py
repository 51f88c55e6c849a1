"""Continuous batching on plain onnxruntime: see docs/onnx_engine.md."""
