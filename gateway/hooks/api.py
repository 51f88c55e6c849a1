"""What a hook is: version 1 of the interface. Named in HOOKS, see docs/hooks.md.

    class NoSecrets(Hook):
        async def before(self, request, about):
            if "secret" in str(request.messages):
                raise Refused("Secrets are not for models.")

Everything runs on the event loop of the server: what takes long has to be awaited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# Changes whenever a hook written before would have to change.
HOOK_API = 1

Channel = Literal["content", "reasoning", "arguments"]


class Refused(Exception):
    """Raised by ``Hook.before``: the caller is told this message and this code.

    Args:
        message: for the caller; says what is wrong and what to do.
        status: 400 for what may not be asked, 403 for who may not ask it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Literal[400, 403] = 400,
        code: str = "content_policy_violation",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class About:
    """Whose request it is.

    Attributes:
        request_id: as in logs and in ``x-request-id``.
        kind: ``chat`` for chat completions, messages and responses.
        model: as the caller named it, or None for the server's first.
        key: public id of the API key.
        stream: the answer is sent as it is made.
    """

    request_id: str
    kind: Literal["chat", "completion"]
    model: str | None
    key: str
    organisation: str
    project: str
    stream: bool


@dataclass(slots=True)
class RequestView:
    """What is asked. A hook's own copy: what it changes or puts in place is what the model gets.

    Attributes:
        messages: of a chat, in the form of OpenAI's ``messages``; of a completion, none.
        prompts: of a completion, each a text or token ids; of a chat, none.
        max_tokens: most output tokens of a choice, or None for what fits.
        tools: offered functions; to look at.
        fields: further fields of the request as they were sent; to look at.
    """

    messages: list[dict[str, Any]]
    prompts: list[str | list[int]]
    max_tokens: int | None
    tools: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What was answered, as far as it came.

    Attributes:
        texts: the content of each choice, as the caller got it.
        finish_reasons: of each choice; None where it did not come to its end.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str | None, ...]
    model: str
    prompt_tokens: int
    completion_tokens: int


class TextRewriter(Protocol):
    """Rewrites one text of an answer as it comes. What it holds back comes with a later piece."""

    def feed(self, text: str) -> str:
        """What may be sent once this piece has come; may be empty."""

    def finish(self) -> str:
        """The rest; the text has ended. Not called when the answer breaks off."""


class Hook(Protocol):
    """Inherit from it and override what is wanted.

    An exception other than ``Refused`` fails the request, with a fixed text for the caller.
    """

    api_version: int = HOOK_API

    async def before(self, request: RequestView, about: About) -> None:
        """See, change or refuse a request. Called again for one that has to be tried again."""

    def rewriter(self, about: About, channel: Channel) -> TextRewriter | None:
        """Who rewrites one text of an answer; None leaves it as it is.

        Asked once per text: per choice its content, its reasoning, and the JSON of the arguments
        of each tool call; text that goes on after something else in between is a text of its own.
        """
        return None

    async def after(self, answer: AnswerView, about: About) -> None:
        """See an answer after its end, whether complete or not. Nobody waits for it."""
