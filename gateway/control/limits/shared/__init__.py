"""Limits shared by all replicas, through Redis."""
