"""A whole run: meets the servers, loads them stage by stage and in turns, writes it all down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.bench.acquaint import acquaint
from gateway.bench.errors import BenchError, Interrupted
from gateway.bench.load import Counts, Load, StageRun, Stopper
from gateway.bench.options import BenchOptions
from gateway.bench.overhead import measure_overhead
from gateway.bench.plan import Plan
from gateway.bench.result import document
from gateway.bench.target import Target
from gateway.bench.watch import GeneratorWatch, warnings_of

Json = dict[str, Any]


class Display(Protocol):
    """Shows a run while it goes on."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def following(self, counts: Counts) -> AbstractAsyncContextManager[None]:
        """Shows counts until left."""


@dataclass(slots=True)
class BenchResult:
    """What a run found.

    Attributes:
        documents: one per server. interrupted: the user ended it early.
    """

    documents: list[Json]
    interrupted: bool


def run_bench(options: BenchOptions, display: Display, *, overhead: bool = False) -> BenchResult:
    """Do it, in an event loop of its own. Raises BenchError and Interrupted."""
    import uvloop

    options.check()
    plan = Plan(options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Session(options, plan, display).run(overhead))


class _Session:
    def __init__(self, options: BenchOptions, plan: Plan, display: Display) -> None:
        self._options = options
        self._plan = plan
        self._display = display
        self._stopper = Stopper()
        self._runs: list[StageRun] = []

    async def run(self, overhead: bool) -> BenchResult:
        _allow_many_connections()
        with ExitStack() as stack:
            stack.enter_context(self._stopping_at_signals())
            targets = [self._target(stack, number) for number in range(len(self._options.servers))]
            await self._unless_stopped(self._meet(targets))
            watch = GeneratorWatch()
            try:
                gc.collect()
                gc.freeze()
                await self._load(targets, watch)
            finally:
                gc.unfreeze()
            interrupted = self._stopper.stopped.is_set()
            if not any(run.outcomes for run in self._runs):
                raise Interrupted if interrupted else BenchError("there was nothing to send")
            generator = self._generator(watch)
            if overhead and not interrupted:
                self._display.say("measuring what the generator itself adds")
                generator["added"] = await measure_overhead(self._runs, self._stopper)
            run_id = uuid.uuid4().hex
            documents = [
                document(
                    self._options,
                    target,
                    [run for run in self._runs if run.server == target.server.name],
                    generator,
                    run_id,
                )
                for target in targets
            ]
            return BenchResult(documents, interrupted)

    def _target(self, stack: ExitStack, number: int) -> Target:
        options = self._options
        extra = dict(options.extra_body)
        if options.temperature is not None:
            extra["temperature"] = options.temperature
        ignore_eos = options.ignore_eos
        target = Target(
            options.servers[number],
            options.endpoint,
            extra,
            ignore_eos=self._plan.synthetic if ignore_eos is None else ignore_eos,
            timeout_s=options.timeout_s,
        )
        stack.callback(target.close)
        return target

    async def _meet(self, targets: list[Target]) -> None:
        for target in targets:
            await acquaint(target, with_words=self._plan.synthetic)
            for note in target.notes:
                self._display.say(note)
            if self._options.warmups:
                stage = self._plan.warm_up(target.server.name)
                await Load(target, stage, -1, self._stopper, Counts())()

    async def _load(self, targets: list[Target], watch: GeneratorWatch) -> None:
        rounds = self._options.rounds if len(targets) > 1 else 1
        plan = (
            self._plan
            if rounds == 1
            else Plan(_share_of_round(self._options, self._plan.count, rounds))
        )
        counts = Counts()
        for round_ in range(rounds):
            stages = [plan.stages(round_, target.server.name) for target in targets]
            for turn in range(len(stages[0])):
                # Whoever is second finds another machine than the first: they take turns.
                order = range(len(targets)) if round_ % 2 == 0 else range(len(targets))[::-1]
                for number in order:
                    if self._stopper.stopped.is_set():
                        return
                    load = Load(
                        targets[number], stages[number][turn], round_, self._stopper, counts
                    )
                    async with watch, self._display.following(counts):
                        self._runs.append(await load())

    def _generator(self, watch: GeneratorWatch) -> Json:
        tokens = sum(outcome.output_tokens for run in self._runs for outcome in run.outcomes)
        lateness = [late for run in self._runs for late in run.lateness]
        report = watch.report(tokens, lateness)
        report["warnings"] = warnings_of(report)
        return report

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that a signal ends at once."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopper.stopped.wait())
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._stopper.stopped.is_set():
            raise Interrupted
        task.result()

    @contextlib.contextmanager
    def _stopping_at_signals(self) -> Iterator[None]:
        """The first signal ends the run with what has been measured; a second one kills."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)

        def stop() -> None:
            for number in signals:
                loop.remove_signal_handler(number)
            self._display.say("ending early; what was measured so far is kept")
            self._stopper.stop()

        for number in signals:
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


def _share_of_round(options: BenchOptions, count: int | None, rounds: int) -> BenchOptions:
    """What each round sends, so that all rounds together send what was asked for; of a trace
    every round sends all."""
    if options.trace is not None:
        return options
    duration = options.duration_s
    return replace(
        options,
        requests=None if count is None else -(-count // rounds),
        duration_s=None if duration is None else duration / rounds,
    )


def _allow_many_connections() -> None:
    """Every request on its way is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
