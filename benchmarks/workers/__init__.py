"""One engine per process, driven over JSON lines by ``benchmarks.pool``."""
