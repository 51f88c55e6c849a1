"""A process of its own with an engine in it, for tests that signal or kill the process.

    python vllm_host.py MODEL

It keeps four streams going. Like the gateway it outlives SIGINT and SIGTERM. It prints one line
of JSON when the streams are open, and one when both signals have come and every stream has made
``MORE`` tokens since. Then it waits to be killed, streams and all.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from vllm_helpers import config, prompt, request  # noqa: E402

from engine.vllm.engine import VllmEngine  # noqa: E402

STREAMS = 4
MORE = 40


async def main(model: str) -> None:
    loop = asyncio.get_running_loop()
    signals = {number: asyncio.Event() for number in (signal.SIGINT, signal.SIGTERM)}
    for number, came in signals.items():
        loop.add_signal_handler(number, came.set)
    engine = VllmEngine(config(model))
    await engine.start()
    made = [0] * STREAMS

    async def keep_going(index: int) -> None:
        while True:
            asked = request(prompt(10, index), 1500, ignore_eos=True)
            async for delta in engine.generate(asked):
                made[index] += len(delta.token_ids)

    tasks = [asyncio.create_task(keep_going(index)) for index in range(STREAMS)]

    async def all_reach(wanted: list[int]) -> None:
        while any(one < other for one, other in zip(made, wanted, strict=True)):
            if failed := [task for task in tasks if task.done()]:
                failed[0].result()
            await asyncio.sleep(0.01)

    await all_reach([1] * STREAMS)
    seen = {"processes": engine._processes.alive(), "folder": str(engine._processes.folder)}
    print(json.dumps(seen), flush=True)
    for came in signals.values():
        await came.wait()
    await all_reach([count + MORE for count in made])
    print(json.dumps({"streams": sum(not task.done() for task in tasks)}), flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
