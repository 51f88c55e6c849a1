"""The short way of outputs: what takes it, in which order, and what ZeroMQ has to do with it."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace as Bag
from typing import Any

import pytest

from engine.vllm.intake import Inbox, Intake
from engine.vllm.metrics import Counters
from engine.vllm.receiver import Receiver

pytestmark = pytest.mark.asyncio


def part(request: str, *tokens: int, finish: Any = None, events: Any = None) -> Bag:
    ids = list(tokens)
    return Bag(request_id=request, new_token_ids=ids, finish_reason=finish, events=events)


def message(*parts: Bag, stats: Any = None) -> Bag:
    return Bag(outputs=list(parts), scheduler_stats=stats, engine_index=0)


def output(*tokens: int, finished: bool = False) -> Bag:
    """What vLLM's own way makes of a part."""
    return Bag(tokens=list(tokens), finished=finished)


class Front:
    """An intake with one request whose first output has come."""

    def __init__(self) -> None:
        self.slow: asyncio.Queue[Any] = asyncio.Queue()
        self.counters = Counters()
        self.intake = Intake(self.slow, self.counters)
        self.inbox = Inbox()
        self.intake.register("a", self.inbox)
        self.intake.put_nowait(message(part("a", 1, events=["scheduled"])))
        assert [each.request_id for each in self.slow.get_nowait().outputs] == ["a"]
        self.inbox.put(output(1))


async def test_tokens_alone_take_the_short_way_and_are_joined() -> None:
    front = Front()
    assert [item.tokens for item in await front.inbox.take()] == [[1]]
    front.intake.put_nowait(message(part("a", 2)))
    front.intake.put_nowait(message(part("a", 3, 4)))
    assert front.slow.empty()
    assert await front.inbox.take() == [[2, 3, 4]]


async def test_the_last_output_and_events_take_vllms_own_way_in_order() -> None:
    front = Front()
    await front.inbox.take()
    front.intake.put_nowait(message(part("a", 2)))
    front.intake.put_nowait(message(part("a", 3, events=["preempted"])))
    # Still on its way: nothing may overtake it.
    front.intake.put_nowait(message(part("a", 4)))
    assert front.slow.qsize() == 2
    front.inbox.put(output(3))
    front.inbox.put(output(4))
    front.intake.put_nowait(message(part("a", 5)))
    front.intake.put_nowait(message(part("a", 6, finish="length")))
    assert not front.inbox.ended
    front.inbox.put(output(6, finished=True))
    assert front.inbox.ended
    taken = await front.inbox.take()
    assert [item if isinstance(item, list) else item.tokens for item in taken] == [
        [2],
        [3],
        [4],
        [5],
        [6],
    ]


async def test_a_message_is_split_and_statistics_are_kept() -> None:
    front = Front()
    await front.inbox.take()
    stats = Bag(
        num_running_reqs=3,
        num_waiting_reqs=2,
        kv_cache_usage=0.5,
        prefix_cache_stats=Bag(queries=10, hits=4),
        spec_decoding_stats=None,
    )
    front.intake.put_nowait(message(part("a", 2), stats=stats))
    assert front.slow.empty()
    assert front.counters.total("running") == 3
    assert front.counters.total("prefix_hits") == 4
    # vLLM records what it is given itself.
    front.intake.put_nowait(message(part("a", 3), part("other", 9), stats=stats))
    assert [each.request_id for each in (await front.intake.get()).outputs] == ["other"]
    assert front.counters.total("prefix_hits") == 4
    assert await front.inbox.take() == [[2, 3]]


async def test_a_forgotten_request_gets_nothing_more() -> None:
    front = Front()
    await front.inbox.take()
    front.intake.forget("a")
    front.intake.put_nowait(message(part("a", 2)))
    assert front.slow.qsize() == 1


async def test_an_error_comes_after_what_came_before_it() -> None:
    front = Front()
    front.intake.put_nowait(message(part("a", 2)))
    front.intake.put_nowait(OSError("gone"))
    assert isinstance(front.slow.get_nowait(), OSError)
    front.inbox.put(OSError("gone"))
    assert front.inbox.ended
    assert len(await front.inbox.take()) == 2
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await front.inbox.take()


async def test_who_waits_is_woken() -> None:
    front = Front()
    await front.inbox.take()
    waiting = asyncio.create_task(front.inbox.take())
    await asyncio.sleep(0)
    front.intake.put_nowait(message(part("a", 2)))
    assert await waiting == [[2]]
    waiting = asyncio.create_task(front.inbox.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    front.intake.put_nowait(message(part("a", 3)))
    assert await front.inbox.take() == [[3]]


async def test_a_receiver_gets_every_message_and_survives_the_end_of_its_socket() -> None:
    zmq_asyncio = pytest.importorskip("zmq.asyncio")
    import zmq

    context = zmq_asyncio.Context()
    socket = context.socket(zmq.PULL)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def send(first: int, last: int) -> None:
        with zmq.Context() as plain, plain.socket(zmq.PUSH) as sender:
            sender.connect(f"tcp://127.0.0.1:{port}")
            for number in range(first, last):
                sender.send_multipart([b"%d" % number, *[b"x"] * (number % 3)])

    receiver = Receiver(socket)
    for first, last in ((0, 1), (1, 500)):
        sending = asyncio.create_task(asyncio.to_thread(send, first, last))
        for number in range(first, last):
            async with asyncio.timeout(60):
                frames = await receiver.recv_multipart(copy=False)
            assert bytes(frames[0].buffer) == b"%d" % number
            assert len(frames) == 1 + number % 3
        await sending
    waiting = asyncio.create_task(receiver.recv_multipart(copy=False))
    await asyncio.sleep(0)
    socket.close()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    with pytest.raises(zmq.ZMQError):
        await receiver.recv_multipart(copy=False)
    receiver.close()
    receiver.close()
    context.term()
