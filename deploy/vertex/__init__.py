"""The gateway on Vertex AI endpoints: one spec in, the cloud's resources out."""


class VertexError(Exception):
    """What stands in the way, in one sentence with what to do about it."""
