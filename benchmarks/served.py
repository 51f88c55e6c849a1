"""What remains of the engine's speed behind HTTP, and how soon a fresh process answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import PeerUnavailable, say
from benchmarks.peers import MAX_LEN, MAX_STREAMS, OWN, PEERS
from benchmarks.pool import ROOT, Pool, Worker, WorkerError
from benchmarks.report import Goal, spread, table
from benchmarks.shapes import Shape
from benchmarks.workers.http_load import request_bytes
from benchmarks.workers.wire import Job

SERVED_GOAL = 0.85
START_GOAL_S = 3.0
MEMORY_GOAL_MB = 400.0
WORDS = 40
TIMEOUT_S = 600.0


class ServerFault(Exception):
    """The server did not come up or went away. The message says where its log is."""


@dataclass(slots=True)
class ServedResults:
    """Samples of the HTTP part."""

    shape: str = ""
    engine_tok_s: list[float] = field(default_factory=list)
    server_tok_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    memory_after_load_mb: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Server over engine, per round."""
        pairs = zip(self.server_tok_s, self.engine_tok_s, strict=False)
        return [server / engine for server, engine in pairs]

    def as_json(self) -> dict[str, Any]:
        """Every sample."""
        return {**asdict(self), "ratios": self.ratios}

    def table(self) -> str:
        """Rows with median and spread."""
        rows = [
            [f"engine alone, 16 streams, {self.shape}, tok/s", spread(self.engine_tok_s)],
            ["the same through the HTTP server, tok/s", spread(self.server_tok_s)],
            ["server / engine", spread(self.ratios)],
            ["process start to first token, bundled model, s", spread(self.first_token_s)],
            ["resident memory after the first answer, MB", spread(self.memory_mb)],
            ["resident memory after 16 streams, MB", spread(self.memory_after_load_mb)],
        ]
        rows += [["not measured", error] for error in self.errors]
        return table(["", "median (min–max)"], rows)

    def goals(self) -> list[Goal]:
        """The goals that concern the server."""
        memory = [*self.memory_mb, *self.memory_after_load_mb]

        def goal(what: str, wanted: str, values: list[float], reached: bool | None) -> Goal:
            return Goal(what, wanted, spread(values), reached if values else None)

        ratios, starts = self.ratios, self.first_token_s
        served = median(ratios) >= SERVED_GOAL if ratios else None
        quick = median(starts) < START_GOAL_S if starts else None
        small = max(memory) < MEMORY_GOAL_MB if memory else None
        return [
            goal(f"{self.shape}: server / engine, 16 streams", "≥ 0.85", ratios, served),
            goal("bundled model: start to first token, s", "< 3", starts, quick),
            goal("bundled model: resident memory, MB", "< 400", memory, small),
        ]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(settings: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A gateway process with default settings but for ``settings``."""
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "gateway", "serve"]
    env = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), **settings}
    with log.open("w") as file:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, process_group=0
        )
    try:
        yield process, port
    finally:
        try:
            os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def get_status(port: int, path: str) -> int:
    """Status of a GET, or 0 while nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            sock.sendall(request.encode())
            return int(sock.recv(64).split(b" ")[1])
    except (OSError, IndexError, ValueError):
        return 0


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until requests are taken; the first start on a shape converts it."""
    deadline = time.monotonic() + TIMEOUT_S
    while get_status(port, "/health/ready") != 200:
        if process.poll() is not None:
            raise ServerFault(f"the server ended with status {process.returncode}; log: {log}")
        if time.monotonic() > deadline:
            raise ServerFault(f"the server was not ready within {TIMEOUT_S:.0f} s; log: {log}")
        time.sleep(0.1)


def first_token_time(process: subprocess.Popen[bytes], port: int, log: Path) -> float:
    """Seconds from now until a streamed answer brings its first token."""
    start = time.perf_counter()
    request = request_bytes("127.0.0.1", port, "Hello! Who are you?", 16, extra=False)
    while True:
        elapsed = time.perf_counter() - start
        if process.poll() is not None or elapsed > 120:
            raise ServerFault(f"no first token within {elapsed:.0f} s; log: {log}")
        if get_status(port, "/health/ready") != 200:
            time.sleep(0.005)
            continue
        received = b""
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(request)
            found = 0.0
            while data := sock.recv(65536):
                received += data
                if not found and b'"content":"' in received.replace(b'"content":""', b""):
                    found = time.perf_counter() - start
                if b"data: [DONE]" in received:
                    break
        if not found:
            raise ServerFault(f"the answer held no text: {received[-300:]!r}")
        return found


def resident_mb(pid: int) -> float:
    """Resident memory of one process, in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def run_served(shape: Shape, rounds: int, threads: int, work: Path, out: Path) -> ServedResults:
    """Both parts; a fault in one is noted and leaves the other."""
    results = ServedResults(shape=shape.title)
    say(f"through HTTP: {shape.title}, then the start of the bundled model")
    logs = out / "logs"
    with Pool() as pool:
        load_job = Job("", "", 1, MAX_STREAMS, MAX_LEN, {})
        argv = [sys.executable, "-m", "benchmarks.workers.http_load"]
        client = Worker("http-load", argv, load_job, logs / "http-load.log")
        pool.workers.append(client)
        client.wait_ready(60)
        try:
            measure_throughput(results, pool, client, shape, rounds, threads, work, logs)
        except (ServerFault, WorkerError, PeerUnavailable) as error:
            say(f"  {error}")
            results.errors.append(str(error).splitlines()[0])
        try:
            for number in range(max(3, rounds)):
                measure_start(results, client, number, logs / "server-bundled.log")
        except (ServerFault, WorkerError) as error:
            say(f"  {error}")
            results.errors.append(str(error).splitlines()[0])
    return results


def measure_throughput(
    results: ServedResults,
    pool: Pool,
    client: Worker,
    shape: Shape,
    rounds: int,
    threads: int,
    work: Path,
    logs: Path,
) -> None:
    """The same 16 requests to the server and to a bare engine, in turn."""
    prepared = PEERS[OWN].prepare(shape, work)
    engine = Worker(OWN, prepared.argv, prepared.job(threads), logs / f"{shape.name}-served.log")
    pool.workers.append(engine)
    engine.wait_ready(TIMEOUT_S)
    settings = {
        "MODEL_NAME": str(prepared.model),
        "ENGINE": "onnx",
        "MAX_NUM_SEQS": str(MAX_STREAMS),
        "MAX_MODEL_LEN": str(MAX_LEN),
        "ONNX_THREADS": str(threads),
        "MODEL_CACHE_DIR": str(prepared.options["cache_dir"]),
    }
    log = logs / f"server-{shape.name}.log"
    tokens = 96
    with server(settings, log) as (process, port):
        wait_ready(process, port, log)
        for number in range(-1, rounds):
            command = {"op": "batch", "seed": 77 + number, "tokens": tokens}
            where = {"host": "127.0.0.1", "port": port, "words": WORDS, "streams": MAX_STREAMS}
            os.killpg(process.pid, signal.SIGCONT)
            served = client.ask({**command, **where}, TIMEOUT_S)
            os.killpg(process.pid, signal.SIGSTOP)
            bare = engine.ask({**command, "prompt_lens": served["prompt_lens"]}, TIMEOUT_S)
            for name, sample in (("server", served), ("engine", bare)):
                if sample["tokens"] != tokens * MAX_STREAMS:
                    raise WorkerError(f"{name}: {sample['tokens']} tokens came, not all")
            if number >= 0:
                results.server_tok_s.append(served["tokens"] / served["seconds"])
                results.engine_tok_s.append(bare["tokens"] / bare["seconds"])


def measure_start(results: ServedResults, client: Worker, number: int, log: Path) -> None:
    """One fresh process with the bundled model."""
    with server({"MODEL_NAME": "bundled"}, log) as (process, port):
        results.first_token_s.append(first_token_time(process, port, log))
        results.memory_mb.append(resident_mb(process.pid))
        where = {"host": "127.0.0.1", "port": port, "words": WORDS, "streams": MAX_STREAMS}
        client.ask({"op": "batch", "seed": number, "tokens": 64, **where}, TIMEOUT_S)
        results.memory_after_load_mb.append(resident_mb(process.pid))
