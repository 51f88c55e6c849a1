"""What a connection writes within one turn of the event loop goes out together, and all of it."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.http.joined_writes import MOST_HELD_BYTES, JoinedWrites

Ends = tuple[JoinedWrites, socket.socket]


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    """A joining transport, and the other end of its connection."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    yield JoinedWrites(transport, loop), far
    transport.abort()
    far.close()
    await asyncio.sleep(0)


async def received(far: socket.socket) -> bytes:
    """What one read gives."""
    async with asyncio.timeout(30):
        return await asyncio.get_running_loop().sock_recv(far, 1 << 20)


async def test_writes_of_one_turn_are_one(ends: Ends) -> None:
    transport, far = ends
    for piece in (b"one ", b"two ", b"three"):
        transport.write(piece)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    assert await received(far) == b"one two three"
    transport.write(b"four")
    assert await received(far) == b"four"


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_the_end_comes_after_what_was_written(ends: Ends, end: str) -> None:
    transport, far = ends
    transport.write(b"last ")
    transport.write(b"words")
    getattr(transport, end)()
    assert await received(far) == b"last words"
    assert await received(far) == b""


async def test_much_goes_out_at_once(ends: Ends) -> None:
    transport, far = ends
    transport.write(b"x" * MOST_HELD_BYTES)
    transport.write(b"y")
    assert transport.get_write_buffer_size() > 0 or far.recv(1) == b"x"


async def test_nothing_is_sent_once_the_connection_is_aborted(ends: Ends) -> None:
    transport, far = ends
    transport.write(b"too late")
    transport.abort()
    await asyncio.sleep(0)
    assert transport.is_closing()
    assert await received(far) == b""
