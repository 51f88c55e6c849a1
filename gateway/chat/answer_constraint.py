"""What the output of a request is held to: its tool choice, its format, behind any thinking."""

from __future__ import annotations

from collections.abc import Mapping

from engine.base import StructuredOutput
from gateway.chat.constraints import Thinking, after_thinking, tool_constraint
from gateway.chat.parsing import REASONING_FORMATS, Formats
from gateway.errors import InvalidRequest
from gateway.protocol.chat_request import ChatRequest


class AnswerConstraint:
    """Makes the constraints of one model's answers.

    Args:
        token_ids: the tokenizer's added tokens, by text.
        opens_thinking: the chat template opens the thinking wherever there is to be any, so
            an output that does not begin inside of it has none.
    """

    def __init__(
        self, formats: Formats, token_ids: Mapping[str, int], *, opens_thinking: bool
    ) -> None:
        self._formats = formats
        self._token_ids = dict(token_ids)
        self._opens_thinking = opens_thinking

    def of(
        self, request: ChatRequest, prompt_end: str
    ) -> tuple[StructuredOutput | None, str | None]:
        """The constraint and the request field that asks for it; None for free text.

        Raises InvalidRequest for what cannot be enforced in this model's formats.
        """
        wanted, choice = request.structured, request.tool_choice
        if wanted is None and choice.mode == "none":
            return None, None
        thinking = self.thinking(prompt_end)
        forced = choice.mode in ("required", "named")
        made = tool_constraint(
            self._formats.tool,
            request.tools,
            choice,
            parallel=request.parallel_tool_calls,
            token_id=self._token_ids.get,
            thinking=thinking,
            answer=wanted,
        )
        if made is not None:
            field = "tool_choice" if forced else "tools"
            return made, request.structured_field if wanted is not None and not forced else field
        if wanted is None:
            return None, None
        if self._formats.reasoning is not None and self._formats.reasoning not in REASONING_FORMATS:
            raise InvalidRequest(
                f"'{request.structured_field}' is not supported: this model answers in channels, "
                "which a constraint cannot follow.",
                param=request.structured_field,
                code="unsupported_parameter",
            )
        if thinking is not None:
            wanted = after_thinking(wanted, thinking, self._token_ids.get)
        return wanted, request.structured_field

    def thinking(self, prompt_end: str) -> Thinking | None:
        """How the model may think before an answer to this prompt; None when it will not."""
        form = REASONING_FORMATS.get(self._formats.reasoning or "")
        if form is None:
            return None
        opened = form.left_open(prompt_end)
        closed = prompt_end.rstrip().endswith(form.closes)
        if not opened and (closed or self._opens_thinking):
            return None
        return Thinking(form.opens[0], form.closes[0], opened)
