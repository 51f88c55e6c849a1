"""What it costs to stand between clients and an engine: ``python -m benchmarks.frontend``."""
