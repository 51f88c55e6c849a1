"""What ``llm-gateway serve`` tells the person who starts it."""

from __future__ import annotations

import os
import shlex
import sys

import orjson

from engine.base import ModelInfo
from gateway import __version__
from gateway.settings import Settings


class Banner:
    """Writes to stdout; logs go to stderr.

    Args:
        port: the bound port, which differs from the setting when that is 0.

    Attributes:
        admin_port: the same for ADMIN_PORT, where the operators' routes have a port.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._url = f"http://{reachable_host(settings.host)}:{port}"
        self.admin_port: int | None = None

    def starting(self, kind: str, why: str) -> None:
        """The port is bound and the model begins to load."""
        say(f"llm-gateway {__version__}")
        if self._settings.config_file is not None:
            say(f"models   from {self._settings.config_file}")
        else:
            say(f"model    {self._settings.model_name}")
            say(f"engine   {kind} ({why})")
        say(f"url      {self._url}  (loading; progress at {self._url}/health/startup)")
        if self.admin_port is not None:
            host = reachable_host(self._settings.admin_host)
            say(f"admin    http://{host}:{self.admin_port}  (/admin and /metrics)")

    def ready(self, infos: list[ModelInfo], seconds: float) -> None:
        """The models are loaded: how to use them."""
        for info in infos:
            names = ", ".join((info.id, *info.aliases))
            precision = info.dtype if info.quantization == "none" else info.quantization
            say(
                f"ready    {names} after {seconds:.1f} s: "
                f"{info.engine} on {info.device}, {precision}"
            )
            say(f"         up to {info.max_model_len} tokens per request")
        if self._settings.playground:
            say(f"chat     {self._url}/  (the playground, in a browser)")
            say(f"docs     {self._url}/docs")
        say("")
        if not infos:
            say(f"ready    after {seconds:.1f} s: every model runs on other servers")
        say(self.example(infos))
        say("")

    def example(self, infos: list[ModelInfo]) -> str:
        """A command that tries the first model that chats or, where none does, the first."""
        chatting = [info.id for info in infos if info.capabilities.generation]
        if infos and not chatting:
            return self.embedding_curl(infos[0].id)
        return self.curl(chatting[0] if chatting else "")

    def curl(self, model: str) -> str:
        """A command that gets a streamed answer when pasted into a shell."""
        body = {
            **({"model": model} if model else {}),
            "stream": True,
            "messages": [{"role": "user", "content": "Hello! Who are you?"}],
        }
        return f"curl -N {self._request('/v1/chat/completions', body)}"

    def embedding_curl(self, model: str) -> str:
        """A command that gets a vector."""
        return f"curl {self._request('/v1/embeddings', {'model': model, 'input': 'Hello!'})}"

    def _request(self, path: str, body: dict[str, object]) -> str:
        key = ""
        if self._settings.api_keys:
            name = "${API_KEYS%%,*}" if "API_KEYS" in os.environ else "YOUR_KEY"
            key = f' -H "Authorization: Bearer {name}"'
        elif needs_key(self._settings):
            key = ' -H "Authorization: Bearer YOUR_KEY"'
        return (
            f"{self._url}{path} -H 'Content-Type: application/json'{key} "
            f"-d {shlex.quote(orjson.dumps(body).decode())}"
        )


def needs_key(settings: Settings) -> bool:
    """Whether clients have to send a key, also when the stored ones cannot be read."""
    try:
        return settings.has_keys()
    except ValueError:
        return True


def reachable_host(host: str) -> str:
    """An address that works in a URL on this machine, for one that was bound."""
    if host in ("0.0.0.0", "", "::", "[::]"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def say(line: str) -> None:
    """A line on stdout, at once, unless nobody reads it any more."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process
