"""Whole answers kept in memory, for callers who ask for it."""
