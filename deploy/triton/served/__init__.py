"""Python-backend models. Each file is copied as ``model.py`` and imports nothing of this project.

Triton's stub process runs them, with ``triton_python_backend_utils`` beside it; they need
numpy, and where said onnxruntime, tokenizers and jinja2, in that process's Python.
"""
