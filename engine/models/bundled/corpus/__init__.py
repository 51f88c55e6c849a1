"""Synthetic conversations that the bundled model is trained and examined on."""
