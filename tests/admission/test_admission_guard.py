"""Waiting in an event loop: cancellation, time limits and the end, without a server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.base import Load
from gateway.control.admission.guard import Admission
from gateway.control.admission.policy import Policy, class_of, policy_of, priority_of
from gateway.control.admission.tiers import served_tier, take_tier
from gateway.control.admission.wishes import read_timeout, read_wishes
from gateway.control.gate import Gate, Used, Work
from gateway.control.rights import CLASSES, Principal, PriorityClass, Rights
from gateway.errors import (
    DeadlinePassed,
    InvalidRequest,
    ServerDraining,
    ServerOverloaded,
    answer,
)
from gateway.http.exchange import Exchange
from gateway.settings import SettingsError, load_settings

PATIENCE_S = 30.0


class Engine:
    """What admission sees of one."""

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.held_back = 0

    def load(self) -> Load:
        return Load(self.held_back, 0, 0, 0, self.max_running)


class Setting:
    """An engine behind a gate whose only guard is admission."""

    def __init__(self, max_running: int = 1, **policy: Any) -> None:
        self.engine = Engine(max_running)
        self.admission = Admission(Policy(**{"overcommit": 0.0, **policy}))
        self.gate = Gate((self.admission,))
        self.route: Any = SimpleNamespace(engine=self.engine, model_id="m")
        self.controller = self.admission.lane(self.route).controller

    def work(self, tenant: str = "a", **fields: Any) -> Work:
        given: dict[str, Any] = {
            "request_id": "r",
            "principal": Principal(tenant, ""),
            "model": "m",
            "route": self.route,
            "prompt_tokens": 10,
            "max_tokens": 10,
            "is_capped": True,
            "choices": 1,
            "priority": 0,
            "deadline": None,
            "used": Used(),
        }
        return Work(**(given | fields))

    async def run(self, work: Work, until: asyncio.Event) -> None:
        async with self.gate.enter(work):
            await until.wait()

    async def is_true(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.001)

    def check_empty(self) -> None:
        controller = self.controller
        assert (controller.held, controller.waiting, self.engine.held_back) == (0, 0, 0)
        assert (controller.held_slots, controller.held_blocks) == (0, 0)


async def test_random_comings_and_goings_leave_nothing_behind() -> None:
    setting = Setting(3, max_queue=40, promote_s=0.01)
    chance = random.Random(5)
    running: set[object] = set()
    endings: dict[str, int] = {}
    most = 3

    async def one() -> None:
        deadline = time.perf_counter() + chance.random() / 20 if chance.random() < 0.2 else None
        priority = priority_of(chance.choice(CLASSES))
        work = setting.work(chance.choice("abc"), priority=priority, deadline=deadline)
        try:
            async with setting.gate.enter(work):
                running.add(work)
                assert len(running) <= most
                try:
                    await asyncio.sleep(chance.random() / 200)
                    if chance.random() < 0.1:
                        raise ZeroDivisionError
                finally:
                    running.discard(work)
        except (ServerOverloaded, DeadlinePassed, ZeroDivisionError) as error:
            name = type(error).__name__
        except asyncio.CancelledError:
            endings["cancelled"] = endings.get("cancelled", 0) + 1
            raise
        else:
            name = "done"
        endings[name] = endings.get(name, 0) + 1

    tasks = []
    for number in range(600):
        tasks.append(asyncio.create_task(one()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if number % 4 == 0:
            await asyncio.sleep(0)
        if number % 20 == 0:
            await asyncio.sleep(0.005)
        if number % 50 == 0:
            # Never larger than before, so that the bound above holds.
            setting.engine.max_running = chance.choice([1, 2, 3])
            setting.admission.apply(Policy(max_queue=40, overcommit=0.0, promote_s=0.01))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
    assert not wrong
    assert {"done", "cancelled", "ServerOverloaded", "ZeroDivisionError"} <= set(endings)
    setting.check_empty()


async def test_a_cancelled_waiter_makes_room_for_the_next() -> None:
    setting = Setting()
    end = asyncio.Event()
    first, second, third = (asyncio.create_task(setting.run(setting.work(), end)) for _ in range(3))
    await setting.is_true(lambda: setting.controller.waiting == 2)
    assert setting.engine.held_back == 2
    second.cancel()
    await asyncio.wait({second})
    assert setting.engine.held_back == 1
    end.set()
    await asyncio.gather(first, third)
    setting.check_empty()


async def test_cancelled_at_the_moment_of_admission() -> None:
    """The place has been given already when the task learns that it is cancelled."""
    setting = Setting()
    end, never = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(setting.run(setting.work(), end))
    second = asyncio.create_task(setting.run(setting.work(), never))
    await setting.is_true(lambda: setting.controller.waiting == 1)
    (ticket,) = setting.controller.tickets()
    assert ticket.future is not None
    ticket.future.add_done_callback(lambda _: second.cancel())
    end.set()
    await asyncio.wait({first, second})
    assert second.cancelled()
    setting.check_empty()


async def test_a_deadline_ends_a_wait() -> None:
    setting = Setting()
    never = asyncio.Event()
    first = asyncio.create_task(setting.run(setting.work(), never))
    await setting.is_true(lambda: setting.controller.held == 1)
    with pytest.raises(DeadlinePassed, match="before the model could begin"):
        await setting.run(setting.work(deadline=time.perf_counter() + 0.02), never)
    with pytest.raises(DeadlinePassed):
        await setting.run(setting.work(deadline=time.perf_counter() - 1), never)
    first.cancel()
    await asyncio.wait({first})
    setting.check_empty()
    assert setting.admission.stats.shed[1, "deadline"] == 2


async def test_a_deadline_ends_what_runs() -> None:
    setting = Setting()
    with pytest.raises(DeadlinePassed, match="before the answer was complete"):
        await setting.run(setting.work(deadline=time.perf_counter() + 0.02), asyncio.Event())
    setting.check_empty()


async def test_a_deadline_does_not_hide_another_cancellation() -> None:
    setting = Setting()
    work = setting.work(deadline=time.perf_counter() + 1000)
    task = asyncio.create_task(setting.run(work, asyncio.Event()))
    await setting.is_true(lambda: setting.controller.held == 1)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    setting.check_empty()


async def test_the_services_own_limit_is_an_overload() -> None:
    setting = Setting(timeout_s=(0.01, 0.02, 0.01))
    never = asyncio.Event()
    first = asyncio.create_task(setting.run(setting.work(), never))
    await setting.is_true(lambda: setting.controller.held == 1)
    with pytest.raises(ServerOverloaded, match="nothing became free") as refused:
        await setting.run(setting.work(), never)
    reply = answer(refused.value, "r")
    assert (reply.status, reply.code) == (503, "server_is_overloaded")
    assert (b"retry-after", b"1") in reply.headers
    assert answer(refused.value, "r", "/v1/messages").status == 529
    first.cancel()
    await asyncio.wait({first})
    setting.check_empty()


async def test_the_end_sends_everybody_away() -> None:
    setting = Setting()
    end = asyncio.Event()
    tasks = [asyncio.create_task(setting.run(setting.work(), end)) for _ in range(4)]
    await setting.is_true(lambda: setting.controller.waiting == 3)
    setting.admission.close()
    end.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), *[ServerDraining] * 3]
    setting.check_empty()


async def test_room_that_the_gateway_has_no_hand_in_is_noticed() -> None:
    setting = Setting()
    end = asyncio.Event()
    tasks = [asyncio.create_task(setting.run(setting.work(), end)) for _ in range(3)]
    await setting.is_true(lambda: setting.controller.waiting == 2)
    setting.engine.max_running = 3
    await setting.is_true(lambda: setting.controller.held == 3)
    end.set()
    await asyncio.gather(*tasks)
    setting.check_empty()


async def test_answers_teach_what_to_expect() -> None:
    setting = Setting()
    estimates = setting.controller.estimates
    assert estimates.output_tokens(100, is_capped=False) == 100
    for _ in range(50):
        work = setting.work(max_tokens=4000, is_capped=False, choices=2)
        async with setting.gate.enter(work):
            work.used.prompt_tokens, work.used.completion_tokens = 10, 60
    assert estimates.output_tokens(4000, is_capped=False) == 30
    assert estimates.output_tokens(4000, is_capped=True) == 4000
    for _ in range(50):
        async with setting.gate.enter(work := setting.work(max_tokens=1000)):
            work.used.prompt_tokens, work.used.completion_tokens = 10, 30
    assert 120 <= estimates.output_tokens(4000, is_capped=True) <= 400, "3 % of what is asked for"
    for _ in range(50):
        async with setting.gate.enter(work := setting.work(max_tokens=50)):
            work.used.prompt_tokens, work.used.completion_tokens = 10, 50
    assert estimates.output_tokens(4000, is_capped=True) > 3900
    with pytest.raises(ZeroDivisionError):
        async with setting.gate.enter(setting.work(max_tokens=4000)) as _:
            raise ZeroDivisionError
    assert estimates.output_tokens(4000, is_capped=False) == 30, "it did not end by itself"


async def test_engines_are_told_the_class_and_the_age() -> None:
    setting = Setting(10)
    told = []
    for name in CLASSES:
        work = setting.work(priority=priority_of(name))
        async with setting.gate.enter(work):
            told.append(work.priority)
    assert told[0] < told[1] < told[2] <= told[0] + 5, "a later epoch overtakes every class"


def exchange(rights: Rights, **headers: str) -> Exchange:
    async def unused(*_: Any) -> Any:
        raise AssertionError

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": pairs}
    made = Exchange(scope, unused, unused)
    made.principal = Principal("k", "", rights=rights)
    read_wishes(made)
    return made


@pytest.mark.parametrize(
    ("ceiling", "asked", "rank"),
    [
        ("interactive", None, 1),
        ("interactive", "interactive", 0),
        ("interactive", " Batch ", 2),
        ("default", "interactive", 1),
        ("batch", "interactive", 2),
        ("batch", None, 2),
    ],
)
def test_the_class_is_bounded_by_the_key(
    ceiling: PriorityClass, asked: str | None, rank: int
) -> None:
    headers = {} if asked is None else {"x_priority": asked}
    assert class_of(exchange(Rights(highest_class=ceiling), **headers).priority) == rank


@pytest.mark.parametrize(
    ("ceiling", "asked", "served"),
    [
        ("interactive", "priority", "priority"),
        ("interactive", "auto", "default"),
        ("interactive", None, "default"),
        ("interactive", ["priority"], "default"),
        ("default", "fast", "default"),
        ("default", "flex", "flex"),
        ("batch", "priority", "flex"),
        ("batch", "default", "flex"),
    ],
)
def test_a_tier_is_bounded_by_the_key(ceiling: PriorityClass, asked: Any, served: str) -> None:
    made = exchange(Rights(highest_class=ceiling))
    made.settings = object()  # type: ignore[assignment]  # a connection asked for it
    take_tier(made, asked)
    assert served_tier(made.priority) == served


def test_work_of_a_batch_keeps_its_class() -> None:
    made = exchange(Rights())
    made.priority = priority_of("batch")
    take_tier(made, "priority")
    assert served_tier(made.priority) == "flex"


@pytest.mark.parametrize("given", ["", "soon", "0", "-1", "nan", "inf", "1e9", "1" * 40, "²"])
def test_a_timeout_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="x-request-timeout"):
        exchange(Rights(), x_request_timeout=given)


def test_wishes_are_read() -> None:
    made = exchange(Rights(), x_request_timeout="2.5")
    assert made.deadline == pytest.approx(made.started + 2.5)
    assert read_timeout(b"1e-3") == 0.001
    with pytest.raises(InvalidRequest, match="interactive, default, batch"):
        exchange(Rights(), x_priority="urgent")


def test_settings_become_a_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert policy_of(load_settings(data_dir=tmp_path)) == Policy(class_queue=(256, 256, 256))
    own = load_settings(
        data_dir=tmp_path,
        max_queue=10,
        max_queue_batch=3,
        max_queue_default="",
        max_queue_interactive=99,
        queue_timeout_batch_s=5,
        share_batch=0.5,
        admission_overcommit=0,
        queue_promote_s=1,
    )
    assert policy_of(own) == Policy(
        max_queue=10,
        class_queue=(10, 10, 3),
        timeout_s=(30.0, 120.0, 5.0),
        shares=(0.2, 0.1, 0.5),
        overcommit=0.0,
        promote_s=1.0,
    )
    with pytest.raises(SettingsError, match=r"SHARE_BATCH add up to 1\.2; keep at most 0\.9"):
        load_settings(data_dir=tmp_path, share_batch=0.9)
