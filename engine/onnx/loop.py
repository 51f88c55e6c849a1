"""The engine's one thread: takes requests, steps the model, hands out what came of it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from engine.base import EngineDead, Load
from engine.onnx.sequence import Job
from engine.onnx.stepper import Output, Stepper

log = logging.getLogger(__name__)

Command = tuple[Literal["submit", "abort"], Job] | Literal["drain", "end"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the engine holds, and how many submitted requests that accounts for."""

    load: Load
    submitted: int


class EngineLoop:
    """Runs a stepper on a thread of its own; nothing else may touch the stepper.

    Args:
        deliver: takes all outputs of one step; called on the engine's thread.
        on_death: called on the engine's thread when an unexpected exception ends it.
    """

    def __init__(
        self,
        stepper: Stepper,
        *,
        deliver: Callable[[list[Output]], None],
        on_death: Callable[[], None],
    ) -> None:
        self._stepper = stepper
        self._deliver = deliver
        self._on_death = on_death
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._submitted = 0
        self._draining = False
        self._ending = False
        self.snapshot = Snapshot(stepper.load(), 0)
        """Replaced as a whole, so that any thread may read it at any time."""
        self._thread = threading.Thread(target=self._run, name="onnx-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a request; from any thread."""
        self._commands.put(("submit", job))

    def abort(self, job: Job) -> None:
        """End a request without further output; from any thread, harmless when it is over."""
        self._commands.put(("abort", job))

    def drain(self) -> None:
        """Make the thread end once nothing is left to do; from any thread."""
        self._commands.put("drain")

    def end(self) -> None:
        """Make the thread end everything with ``abort`` now; from any thread."""
        self._commands.put("end")

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not (self._ending or (self._draining and not self._stepper.jobs)):
                self._take_commands()
                self._step()
            self._stepper.abort_all()
            self._hand_over()
        except BaseException:
            log.exception("the engine thread died")
            self._on_death()
            self._bury()
        finally:
            self._stepper.close()

    def _take_commands(self) -> None:
        """Obey what has come in; wait for something when there is nothing to do."""
        idle = not self._stepper.jobs
        try:
            while True:
                self._obey(self._commands.get(block=idle))
                idle = False
        except queue.Empty:
            self._take_snapshot()

    def _obey(self, command: Command) -> None:
        if command == "drain":
            self._draining = True
            return
        if command == "end":
            self._ending = True
            return
        kind, job = command
        if kind == "submit":
            self._submitted += 1
            self._stepper.add(job)
        else:
            self._stepper.drop(job)

    def _step(self) -> None:
        self._stepper.decode()
        self._hand_over()
        while self._stepper.prefill():
            self._hand_over()

    def _hand_over(self) -> None:
        outputs = self._stepper.take_outputs()
        # Before the outputs, so that whoever sees the last delta sees the load without it.
        self._take_snapshot()
        if outputs:
            self._deliver(outputs)

    def _take_snapshot(self) -> None:
        self.snapshot = Snapshot(self._stepper.load(), self._submitted)

    def _bury(self) -> None:
        """End every request that is known or still on its way with EngineDead."""
        jobs = list(self._stepper.jobs.values())
        while not self._commands.empty():
            command = self._commands.get()
            if not isinstance(command, str):
                jobs.append(command[1])
        outputs = self._stepper.take_outputs()
        error = EngineDead("the engine died while it worked on this request")
        outputs += [(job.mailbox, error) for job in jobs]
        self._deliver(outputs)
