"""Limits of keys, tenants and models: requests, tokens, concurrency and money in their windows.

See docs/limits.md for what they promise.
"""
