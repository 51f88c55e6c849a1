"""Embeddings: from inputs to token ids, and from a checked request to an answer."""
