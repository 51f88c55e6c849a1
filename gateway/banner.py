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
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._url = f"http://{reachable_host(settings.host)}:{port}"

    def starting(self, kind: str, why: str) -> None:
        """The port is bound and the model begins to load."""
        say(f"llm-gateway {__version__}")
        say(f"model    {self._settings.model_name}")
        say(f"engine   {kind} ({why})")
        say(f"url      {self._url}  (loading; progress at {self._url}/health/startup)")

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
        say(self.curl(infos[0].id))
        say("")

    def curl(self, model: str) -> str:
        """A command that gets a streamed answer when pasted into a shell."""
        body = orjson.dumps(
            {
                "model": model,
                "stream": True,
                "messages": [{"role": "user", "content": "Hello! Who are you?"}],
            }
        ).decode()
        key = ""
        if self._settings.api_keys:
            name = "${API_KEYS%%,*}" if "API_KEYS" in os.environ else "YOUR_KEY"
            key = f' -H "Authorization: Bearer {name}"'
        return (
            f"curl -N {self._url}/v1/chat/completions -H 'Content-Type: application/json'{key} "
            f"-d {shlex.quote(body)}"
        )


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
