"""vLLM's AsyncLLM behind the seam.

Nothing here imports vLLM or torch until an engine is started.
"""
