"""``llm-gateway model quantize`` and ``model bench``: smaller variants of a model, measured."""
