"""Stored keys: what they allow, who may make them, and how running servers learn of changes."""
