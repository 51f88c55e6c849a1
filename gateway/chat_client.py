"""A streaming chat in the terminal, against any OpenAI-compatible server."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from rich.console import Console

LEAVE = ("/exit", "/quit")
HELP = "Ctrl-C stops an answer. /reset forgets the conversation. /exit or Ctrl-D leaves."
CONNECT_TIMEOUT_S = 5.0


class ChatError(Exception):
    """The chat cannot begin. The message says why and what to do."""


@dataclass(slots=True)
class Answer:
    """An answer as it arrives. Times are seconds since the request."""

    text: str = ""
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0
    stopped: bool = False

    def summary(self) -> str:
        """Time to first token and speed, as one line."""
        if self.first_s is None:
            return "stopped before the first token" if self.stopped else "no answer"
        parts = [f"first token after {self.first_s * 1000:.0f} ms"]
        if self.tokens > 1 and self.last_s > self.first_s:
            speed = (self.tokens - 1) / (self.last_s - self.first_s)
            parts.append(f"{speed:.1f} tok/s")
        if self.tokens:
            parts.append(f"{self.tokens} tokens")
        if self.stopped:
            parts.append("stopped")
        return ", ".join(parts)


def chat_in_terminal(
    base_url: str, model: str | None, api_key: str | None, system: str | None
) -> None:
    """Read lines and show answers until the person leaves. Raises ChatError."""
    console = Console(highlight=False, soft_wrap=True)
    client = openai.OpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        max_retries=0,
        timeout=openai.Timeout(600.0, connect=CONNECT_TIMEOUT_S),
    )
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() line editing and history
    name = model or first_model(client, base_url)
    console.print(f"Chatting with [bold]{name}[/bold] at {base_url}. {HELP}")
    opening: list[ChatCompletionMessageParam] = (
        [{"role": "system", "content": system}] if system else []
    )
    messages = list(opening)
    for line in read_lines(console):
        if line == "/reset":
            messages = list(opening)
            console.print("[dim]forgotten[/dim]")
            continue
        messages.append({"role": "user", "content": line})
        try:
            answer = stream_answer(client, name, messages)
        except openai.APIError as error:
            console.print(f"[red]{explain(error, base_url)}[/red]")
            messages.pop()
            continue
        console.print(f"[dim]{answer.summary()}[/dim]")
        if answer.text:
            messages.append({"role": "assistant", "content": answer.text})
        else:
            messages.pop()


def read_lines(console: Console) -> Iterator[str]:
    """Non-empty lines from the person; ends at /exit or Ctrl-D."""
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print(f"\n[dim]{HELP}[/dim]")
            continue
        if line in LEAVE:
            return
        if line:
            yield line


def stream_answer(
    client: openai.OpenAI, model: str, messages: list[ChatCompletionMessageParam]
) -> Answer:
    """Print an answer as it comes. Ctrl-C ends the answer and keeps what was said."""
    answer = Answer()
    began = time.perf_counter()
    try:
        with client.chat.completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}
        ) as stream:
            for chunk in stream:
                take(answer, chunk, time.perf_counter() - began)
    except KeyboardInterrupt:
        answer.stopped = True
    sys.stdout.write("\n")
    sys.stdout.flush()
    return answer


def take(answer: Answer, chunk: ChatCompletionChunk, elapsed_s: float) -> None:
    """Show what a chunk adds."""
    if chunk.usage is not None:
        answer.tokens = chunk.usage.completion_tokens
    for choice in chunk.choices:
        text = choice.delta.content
        if not text:
            continue
        if answer.first_s is None:
            answer.first_s = elapsed_s
        answer.last_s = elapsed_s
        answer.text += text
        sys.stdout.write(text)
        sys.stdout.flush()


def first_model(client: openai.OpenAI, base_url: str) -> str:
    """The server's first model. Raises ChatError when there is no such server."""
    try:
        models = client.models.list().data
    except openai.APIError as error:
        raise ChatError(explain(error, base_url)) from None
    if not models:
        raise ChatError(f"the server at {base_url} lists no models; name one with --model")
    return models[0].id


def explain(error: openai.APIError, base_url: str) -> str:
    """An error in words that say what to do."""
    if isinstance(error, openai.APIConnectionError):
        return f"no server answers at {base_url}; start one with: llm-gateway serve"
    if isinstance(error, openai.AuthenticationError):
        return f"the server at {base_url} needs a valid key: --api-key or OPENAI_API_KEY"
    return f"the server at {base_url} refused: {error.message}"
