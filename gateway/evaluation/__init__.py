"""``llm-gateway model eval``: runs an evaluation and shows what it found."""
