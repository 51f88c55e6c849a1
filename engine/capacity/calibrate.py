"""How fast this CPU is at what decides the ONNX engine's speed, measured in a few seconds.

Every figure is the best of many short runs that are spread over the whole time: other programs
can only make a run slower, and short runs have the best chance of being left alone. With one
thread its CPU time is taken, which does not count what others do meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.capacity import CapacityError

GRAPHS = Path(__file__).with_name("calibration")
PRECISIONS = ("int8", "int4", "fp32")
ROWS = (1, 4, 16, 64, 256)
_FEW = 16  # rows up to which reading the weights matters
SECONDS = 8.0
_LEAST_ROUNDS = 3
_READ_BYTES = 256 * 1024 * 1024  # per thread; past any last-level cache
_LENGTH = 256  # of attention's context
# The graphs' own sizes, as ``calibration.make`` wrote them.
_WIDTH = 1024
_COUNT = {"memory": 25, "cache": 2, "rows": 1}  # products
_SMALL, _HEADS, _HEAD_DIM = 400, 8, 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one CPU does.

    Attributes:
        threads: that the figures hold for.
        bandwidth: bytes per second that all threads read from memory together.
        operator: seconds that an operator costs besides its arithmetic.
        memory, cache: precision -> rows -> seconds per weight of a product with that many
            rows, for weights in memory (few rows only) and in the processor's caches; the
            operators' own cost is taken off.
        attend: one or many rows -> seconds per score and unit of a head's width.
        cache_bytes: of the last-level cache.
    """

    cpu: str
    threads: int
    bandwidth: float
    operator: float
    memory: dict[str, dict[int, float]]
    cache: dict[str, dict[int, float]]
    attend: dict[str, float]
    cache_bytes: int

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises CapacityError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CapacityError(f"the calibration cannot be kept ({error})") from error


def load(path: Path) -> Calibration:
    """Read a kept calibration. Raises CapacityError that says how to make one."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("memory", "cache"):
            raw[name] = {p: {int(r): float(s) for r, s in c.items()} for p, c in raw[name].items()}
        return Calibration(**raw)
    except FileNotFoundError:
        raise CapacityError(
            "this CPU has not been measured: add --calibrate (it takes some seconds, best on a "
            "machine that does nothing else)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CapacityError(f"{path} is no calibration ({error}): add --calibrate") from error


def calibrate(
    threads: int, progress: Callable[[str, float], None], seconds: float = SECONDS
) -> Calibration:
    """Measure this machine with ``threads`` threads; a quarter of a gigabyte each is taken.

    ``progress`` gets a stage for people and the finished share.
    """
    import numpy as np

    best: dict[tuple[str, int], float] = {}
    sessions = {name: _open(name, threads) for name in _names()}
    buffers = [np.full(_READ_BYTES // 4, i, np.float32) for i in range(1, threads + 1)]
    clock = time.thread_time if threads == 1 else time.perf_counter
    start = time.monotonic()
    turn = 0
    while turn < _LEAST_ROUNDS or time.monotonic() - start < seconds:
        elapsed = time.monotonic() - start
        progress("measuring", min(1.0, elapsed / seconds) if seconds else 0.0)
        for name, session in sessions.items():
            for rows in _rows(name):
                if name.endswith("memory"):
                    _keep(best, "read", 0, _read(buffers))  # leaves no weights in the caches
                _keep(best, name, rows, _run(session, name, rows, clock))
        turn += 1
    operator = best["operators", 1] / _SMALL
    return Calibration(
        cpu=_cpu_name(),
        threads=threads,
        bandwidth=threads * _READ_BYTES / best["read", 0],
        operator=operator,
        memory={p: _curve(best, p, ("memory",), operator) for p in PRECISIONS},
        cache={p: _curve(best, p, ("cache", "rows"), operator) for p in PRECISIONS},
        attend={
            "one": best["attention", 1] / (_HEADS * _LENGTH * _HEAD_DIM),
            "many": best["attention", 256] / (256 * _HEADS * _LENGTH * _HEAD_DIM),
        },
        cache_bytes=last_level_cache(),
    )


def _names() -> list[str]:
    kinds = [f"{p}-{place}" for p in PRECISIONS for place in _COUNT]
    return ["operators", "attention", *kinds]


def _rows(name: str) -> tuple[int, ...]:
    if name == "operators":
        return (1,)
    if name == "attention":
        return (1, 256)
    few = tuple(r for r in ROWS if r <= _FEW)
    return tuple(r for r in ROWS if r > _FEW) if name.endswith("rows") else few


def _curve(
    best: dict[tuple[str, int], float], precision: str, places: tuple[str, ...], operator: float
) -> dict[int, float]:
    curve = {}
    for place in places:
        name, count = f"{precision}-{place}", _COUNT[place]
        nodes = count * (8 if precision == "int8" else 1)
        for rows in _rows(name):
            seconds = max(best[name, rows] - nodes * operator, 1e-9)
            curve[rows] = seconds / (count * _WIDTH * _WIDTH)
    return curve


def _open(name: str, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # As the engine's own session (engine.onnx.session).
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = str(GRAPHS / f"{name}.onnx")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: Any, name: str, rows: int, clock: Callable[[], float]) -> float:
    import numpy as np

    if name == "attention":
        kept = (1, _HEADS, _HEAD_DIM, _LENGTH)
        feed = {
            "x": np.ones((1, _HEADS, rows, _HEAD_DIM), np.float32),
            "keys": np.ones(kept, np.float32),
            "values": np.ones((1, _HEADS, _LENGTH, _HEAD_DIM), np.float32),
        }
    else:
        feed = {"x": np.ones((1, rows, _HEAD_DIM if name == "operators" else _WIDTH), np.float32)}
    if not name.endswith("memory"):
        session.run(None, feed)  # the weights are in the caches from here on
    start = clock()
    session.run(None, feed)
    return clock() - start


def _read(buffers: list[Any]) -> float:
    readers = [threading.Thread(target=buffer.max) for buffer in buffers]
    start = time.perf_counter()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return time.perf_counter() - start


def _keep(best: dict[tuple[str, int], float], name: str, rows: int, seconds: float) -> None:
    best[name, rows] = min(best.get((name, rows), float("inf")), seconds)


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache that the first core reaches; 0 where it is not told."""
    found = [0]
    for file in root.glob("index*/size"):
        text = file.read_text(encoding="utf-8").strip()
        unit = {"K": 1024, "M": 1024**2}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            found.append(int(text[:-1]) * unit)
    return max(found)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "this CPU"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "CPU")
