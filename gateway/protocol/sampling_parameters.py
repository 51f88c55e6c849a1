"""What a request of any API tells about sampling."""

from __future__ import annotations

from typing import Any, Protocol

from engine.base import StructuredOutput


class SamplingSource(Protocol):
    """The part of a checked request that the engine's sampling options are made from.

    Attributes:
        fields: the sampling fields that were given, by OpenAI's names.
        logprobs, prompt_logprobs: alternatives per token, or None.
    """

    @property
    def fields(self) -> dict[str, Any]: ...

    @property
    def n(self) -> int: ...

    @property
    def logprobs(self) -> int | None: ...

    @property
    def prompt_logprobs(self) -> int | None: ...

    @property
    def structured(self) -> StructuredOutput | None: ...
