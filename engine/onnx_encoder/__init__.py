"""Embeddings from encoder models on onnxruntime."""
