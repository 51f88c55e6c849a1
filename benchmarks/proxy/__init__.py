"""What it costs to stand between clients and other servers: ``python -m benchmarks.proxy``."""
