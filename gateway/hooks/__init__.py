"""Code of others that sees requests and answers: see ``api`` for what a hook is."""

from gateway.hooks.api import (
    HOOK_API,
    About,
    AnswerView,
    Channel,
    Hook,
    Refused,
    RequestView,
    TextRewriter,
)

__all__ = [
    "HOOK_API",
    "About",
    "AnswerView",
    "Channel",
    "Hook",
    "Refused",
    "RequestView",
    "TextRewriter",
]
