"""What is reserved, what it is settled on, and how a refusal reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from limit_tools import PRICES, Running, SetClock, local_limiter, run, until, work_of

from engine.base import EngineOverloaded, RequestRejected
from gateway.control.limits.book import Book
from gateway.control.limits.durable import FILE, DurableUse, attach
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.refusal import duration
from gateway.control.limits.table import LimitTable, read_table
from gateway.control.limits.windows import DAY_MS, NANO
from gateway.control.rights import Limits, Tenant
from gateway.errors import RateLimited, answer

TOKENS = Limits(tokens_per_minute=1000)


def refused(limiter: Limiter, **work: object) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        Running(limiter, work_of(**work))  # type: ignore[arg-type]
    return caught.value


def tokens_used(limiter: Limiter, clock: SetClock) -> int:
    return limiter.book.counters["key", "key_a", "tokens_per_minute"].total(clock.ms)


def test_what_the_caller_asks_for_is_reserved_and_what_it_uses_is_kept() -> None:
    limiter = local_limiter(clock := SetClock())
    running = Running(limiter, work_of(100, 300, limits=TOKENS, choices=2))
    assert tokens_used(limiter, clock) == 700
    assert refused(limiter, prompt=200, most=200, limits=TOKENS).kind == "tokens"
    running.end(100, 50)
    assert tokens_used(limiter, clock) == 150


@pytest.mark.parametrize("error", [GeneratorExit(), RuntimeError(), asyncio.CancelledError()])
def test_an_early_end_keeps_only_what_was_used(error: BaseException) -> None:
    limiter = local_limiter(clock := SetClock())
    Running(limiter, work_of(100, 800, limits=TOKENS)).end(100, 7, error)
    assert tokens_used(limiter, clock) == 107


def test_without_max_tokens_the_typical_answer_is_reserved() -> None:
    limiter = local_limiter(clock := SetClock())
    for _ in range(40):
        Running(limiter, work_of(1, 500)).end(1, 30)
    limiter.estimator.observe("other", 400)
    Running(limiter, work_of(10, 5000, capped=False, limits=TOKENS))
    assert tokens_used(limiter, clock) == 40
    Running(limiter, work_of(10, 5, capped=False, limits=TOKENS))
    assert tokens_used(limiter, clock) == 55


def test_a_guess_alone_never_refuses_for_good() -> None:
    limiter = local_limiter(SetClock())
    limiter.estimator.observe("m", 5000)
    Running(limiter, work_of(10, 8000, capped=False, limits=TOKENS)).end(10, 20)
    assert refused(limiter, prompt=10, most=8000, limits=TOKENS).retry_after_ms is None
    assert refused(limiter, prompt=1001, most=1, capped=False, limits=TOKENS).retry is False


def test_an_answer_longer_than_reserved_counts_in_full() -> None:
    limiter = local_limiter(clock := SetClock())
    limiter.estimator.observe("m", 10)
    Running(limiter, work_of(10, 900, capped=False, limits=TOKENS)).end(10, 900)
    assert tokens_used(limiter, clock) == 910


def test_only_what_the_caller_is_to_blame_for_costs_a_request() -> None:
    limits = Limits(requests_per_minute=2)
    limiter = local_limiter(SetClock())
    for _ in range(5):
        Running(limiter, work_of(limits=limits)).end(0, 0, EngineOverloaded("full"))
    Running(limiter, work_of(limits=limits)).end(0, 0, RequestRejected("no"))
    Running(limiter, work_of(limits=limits)).end(0, 0, asyncio.CancelledError())
    assert refused(limiter, limits=limits).kind == "requests"


def test_a_refused_request_takes_nothing() -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=100)
    limiter = local_limiter(SetClock())
    for _ in range(20):
        assert refused(limiter, prompt=90, most=20, limits=limits).kind == "tokens"
    for _ in range(5):
        Running(limiter, work_of(5, 5, limits=limits)).end(5, 5)


def test_every_scope_holds_and_the_first_one_full_is_named() -> None:
    table = read_table(
        {
            "organisations": {"acme": {"requests_per_minute": 3}},
            "projects": {"acme/web": {"requests_per_minute": 2}},
            "models": {"m": {"concurrent_requests": 4}},
            "keys": {"key_b": {"requests_per_minute": 1}},
            "default_key": {"requests_per_day": 50},
        }
    )
    limiter = local_limiter(SetClock(), table)
    web, app = Tenant("acme", "web"), Tenant("acme", "app")
    Running(limiter, work_of(key="key_b", tenant=web))
    assert "key 'key_b'" in refused(limiter, key="key_b", tenant=web).message
    Running(limiter, work_of(tenant=web))
    assert "project 'acme/web'" in refused(limiter, tenant=web).message
    Running(limiter, work_of(tenant=app))
    assert "organisation 'acme'" in refused(limiter, tenant=app).message
    Running(limiter, work_of(key="key_z"))
    full = refused(limiter, key="key_y")
    assert "model 'm'" in full.message
    assert full.retry
    Running(limiter, work_of(key="key_y", model="other"))
    assert sum(limiter.refused.values()) == 4
    assert limiter.refused["project", "requests_per_minute"] == 1


def test_a_limit_of_a_model_counts_under_all_its_names() -> None:
    models = {"m-latest": {"requests_per_day": 5}, "m": {"requests_per_day": 2}}
    limiter = local_limiter(SetClock(), read_table({"models": models}))
    limiter.first_names = lambda: {"m": "m", "m-latest": "m"}
    for key in ("key_a", "key_b"):
        Running(limiter, work_of(key=key))
    assert "Limit 2, Used 2" in refused(limiter).message
    limiter.table = read_table({"models": {"m-latest": {"requests_per_day": 3}}})
    Running(limiter, work_of())
    assert "Limit 3, Used 3" in refused(limiter).message


def test_a_changed_limit_applies_at_once_and_forgets_nothing() -> None:
    limiter = local_limiter(clock := SetClock())
    for _ in range(3):
        Running(limiter, work_of(limits=Limits(requests_per_minute=10)))
    lowered = Limits(requests_per_minute=2)
    error = refused(limiter, limits=lowered)
    assert "Limit 2, Used 3" in error.message
    assert error.retry_after_ms is not None
    clock.sleep(error.retry_after_ms)
    Running(limiter, work_of(limits=lowered))


def test_a_replica_without_redis_keeps_to_its_share() -> None:
    limiter = local_limiter(clock := SetClock())
    limiter.book.share = 4
    limits = Limits(tokens_per_minute=100, requests_per_minute=2)
    Running(limiter, work_of(20, 5, limits=limits))
    error = refused(limiter, prompt=1, most=0, limits=limits)
    assert "Limit 1, Used 1" in error.message
    # What is larger than the share, yet within the limit, runs where nothing else was used.
    refused(limiter, prompt=80, most=20, limits=limits)
    clock.sleep(61_000)
    Running(limiter, work_of(80, 20, limits=limits))
    assert refused(limiter, prompt=80, most=21, limits=limits).retry_after_ms is None


def test_a_budget_ends_with_its_month() -> None:
    clock = SetClock(1_801_958_400_000 - 3 * DAY_MS)  # three days before February 2027 ends
    limiter = local_limiter(clock)
    limits = Limits(usd_per_month=100.0)
    Running(limiter, work_of(10, 8, limits=limits)).end(10, 8)
    error = refused(limiter, prompt=10, most=1, limits=limits)
    assert (error.kind, error.code, error.retry) == ("insufficient_quota",) * 2 + (False,)
    assert error.retry_after_ms is not None
    assert "Limit $100, Used $90, Requested $20" in error.message
    clock.sleep(error.retry_after_ms - 1)
    refused(limiter, prompt=10, most=1, limits=limits)
    clock.sleep(1)
    Running(limiter, work_of(10, 1, limits=limits)).end(10, 1)


def test_a_refusal_in_both_protocols() -> None:
    limiter = local_limiter(SetClock())
    Running(limiter, work_of(600, 1, limits=TOKENS))
    error = refused(limiter, prompt=600, most=1, limits=TOKENS)
    reply = answer(error, "req_1", "/v1/chat/completions")
    told = json.loads(reply.body)["error"]
    assert (reply.status, told["type"], told["code"]) == (429, "tokens", "rate_limit_exceeded")
    headers = dict(reply.headers)
    assert headers[b"retry-after"] == b"61"
    assert headers[b"retry-after-ms"] == b"61000"
    # Beyond what the SDKs wait for, they would only come back too early.
    assert headers[b"x-should-retry"] == b"false"
    assert json.loads(answer(error, "req_1", "/v1/messages").body)["error"]["type"] == (
        "rate_limit_error"
    )


def test_the_tightest_windows_are_told() -> None:
    limiter = local_limiter(SetClock())
    limits = Limits(requests_per_minute=50, requests_per_second=10, tokens_per_minute=1000)
    work = work_of(100, 100, limits=limits)
    Running(limiter, work)
    assert dict(work.marks) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"1.05s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"800",
        b"x-ratelimit-reset-tokens": b"1m1s",
    }
    work = work_of(100, 100, limits=limits, anthropic=True)
    Running(limiter, work)
    assert dict(work.marks)[b"anthropic-ratelimit-tokens-remaining"] == b"600"
    assert dict(work.marks)[b"anthropic-ratelimit-tokens-reset"] == b"2027-01-15T08:01:01Z"
    assert not [name for name, _ in work.marks if name.startswith(b"x-")]


def test_durations_are_those_of_openai() -> None:
    assert [duration(ms) for ms in (0, 120, 1000, 1501, 59_999, 360_000, 7_384_001)] == [
        *("0ms", "120ms", "1s", "1.51s", "60s", "6m0s", "2h3m5s"),
    ]


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "JSON object"),
        ({"model": {}}, "'model' is unknown"),
        ({"models": []}, "'models' must be"),
        ({"models": {"m": {"rpm": 1}}}, "'models.m.rpm' is unknown"),
        ({"default_key": {"requests_per_day": 0}}, "'default_key.requests_per_day'"),
        ({"default_key": {"requests_per_day": True}}, "'default_key.requests_per_day'"),
        ({"default_key": {"usd_per_day": float("nan")}}, "'default_key.usd_per_day'"),
        ({"projects": {"acme": {}}}, "organisation/project"),
    ],
)
def test_a_wrong_table_is_refused_by_name(document: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_table(document)


async def test_days_and_months_survive_a_restart(tmp_path: Path) -> None:
    limits = Limits(usd_per_month=100.0, requests_per_day=3, requests_per_minute=2)

    def process() -> Limiter:
        durable = DurableUse(tmp_path, save_s=0.01)
        book = Book(SetClock())
        attach(book, durable)
        return Limiter(LimitTable(), PRICES, book, durable=durable)

    first, beside = process(), process()
    await run(first, work_of(10, 1, limits=limits), (10, 1))
    first.start()
    await until((tmp_path / FILE).exists, "the first save")  # then it is killed
    await run(beside, work_of(5, 1, limits=limits), (5, 1))
    await beside.close()
    second = process()
    await run(second, work_of(1, 1, limits=limits), (1, 1))
    key = ("key", "key_a")
    used = {field: one.used for (*_, field), one in second.book.counters.items()}
    assert list(used["usd_per_month"].values()) == [46 * NANO]
    assert list(used["requests_per_day"].values()) == [3]
    assert list(used["requests_per_minute"].values()) == [1]
    with pytest.raises(RateLimited, match="requests per day"):
        await run(second, work_of(limits=limits))
    await second.close()
    await second.close()  # nothing is written twice
    stored = {tuple(entry[:3]): entry[3] for entry in json.loads((tmp_path / FILE).read_text())}
    assert list(stored[*key, "requests_per_day"].values()) == [3]
    await first.close()


async def test_an_unwritable_folder_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    durable = DurableUse(tmp_path / "file")
    limiter = local_limiter(SetClock())
    limiter.durable = durable
    limits = Limits(requests_per_day=2)
    for _ in range(2):
        await run(limiter, work_of(limits=limits), (1, 1))
        await durable.close()
    with pytest.raises(RateLimited):
        await run(limiter, work_of(limits=limits))
