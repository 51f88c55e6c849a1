"""The gateway on Cloud Run: one spec in, one service out."""


class CloudRunError(Exception):
    """What stands in the way, in one sentence with what to do about it."""
