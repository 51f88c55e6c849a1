"""What the tests of limits share: work to be limited, a clock to be set, a Redis to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.control.gate import Used, Work
from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.shared.store import Timing
from gateway.control.limits.table import LimitTable
from gateway.control.prices import Price, PriceTable
from gateway.control.rights import NO_LIMITS, Limits, Principal, Rights, Tenant

PATIENCE_S = 60.0
# Of replicas on one loop: nothing is waited for that can be had at once.
FAST = Timing(timeout_s=5.0, ttl_s=2.0, grace_s=0.0, heartbeat_s=0.1, lease_s=0.05, block_s=0.01)
# One dollar per prompt token and ten per output token.
PRICES = PriceTable({"m": Price(1e6, 1e6, 1e7)})


class SetClock(Clock):
    """A clock that stands still until it is set."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        super().__init__()
        self.ms = self.wall_ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def calendar_ms(self) -> int:
        return self.wall_ms

    def sleep(self, ms: int) -> None:
        self.ms += ms
        self.wall_ms += ms


def work_of(
    prompt: int = 1,
    most: int = 1,
    *,
    capped: bool = True,
    limits: Limits = NO_LIMITS,
    key: str = "key_a",
    tenant: Tenant | None = None,
    model: str = "m",
    choices: int = 1,
    anthropic: bool = False,
) -> Work:
    """A request for a model."""
    route: Any = SimpleNamespace(model_id=model)
    return Work(
        request_id="r",
        principal=Principal(key, "", tenant or Tenant(), Rights(limits=limits)),
        model=model,
        route=route,
        prompt_tokens=prompt,
        max_tokens=most,
        is_capped=capped,
        choices=choices,
        priority=0,
        deadline=None,
        used=Used(),
        anthropic=anthropic,
    )


def local_limiter(clock: Clock, table: LimitTable | None = None) -> Limiter:
    """A limiter of one process, with nothing to remember."""
    return Limiter(table or LimitTable(), PRICES, Book(clock))


async def run(
    limiter: Limiter,
    work: Work,
    used: tuple[int, int] | None = None,
    error: BaseException | None = None,
) -> None:
    """Let work pass the limiter and use prompt and output tokens, then end or fail."""
    async with limiter.hold(work):
        if used is not None:
            work.used.prompt_tokens, work.used.completion_tokens = used
        if error is not None:
            raise error


class Running:
    """Work that has passed a limiter without a shared store, which never waits."""

    def __init__(self, limiter: Limiter, work: Work) -> None:
        """Raises RateLimited."""
        self.work = work
        self._hold = limiter.hold(work)
        at_once(self._hold.__aenter__())
        # What nobody refers to any more is ended by the collector.
        vars(limiter).setdefault("running", []).append(self)

    def end(self, prompt: int, output: int, error: BaseException | None = None) -> None:
        """Let it have used so many tokens, and end or fail."""
        self.work.used.prompt_tokens, self.work.used.completion_tokens = prompt, output
        with contextlib.suppress(BaseException if error is not None else ()):
            at_once(self._hold.__aexit__(type(error) if error else None, error, None))


def at_once(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run what waits for nothing."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
        coroutine.close()
        raise AssertionError("it waits")


async def until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


class RedisServer:
    """A real redis-server on a unix socket, without persistence."""

    binary = shutil.which("redis-server")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The path of a socket has to be short.
        self.socket = folder / "r.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.binary is not None
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--port", "0", "--unixsocket", str(self.socket), "--save", ""],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        began = time.monotonic()
        while self.command("PING") != "PONG":
            assert self.process.poll() is None, "redis-server ended"
            assert time.monotonic() - began < PATIENCE_S, "redis-server does not answer"
            time.sleep(0.01)

    def command(self, *words: str) -> Any:
        """The answer to one command; None when there is none."""
        import redis

        client = redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=PATIENCE_S)
        try:
            return client.execute_command(*words) if words[0] != "PING" else "PONG" * client.ping()
        except redis.RedisError:
            return None
        finally:
            client.close()

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)
