"""A load generator for OpenAI-compatible servers: ``llm-gateway bench``."""
