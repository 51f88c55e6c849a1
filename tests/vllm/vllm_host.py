"""A process of its own with an engine in it, for tests that signal or kill the process.

    python vllm_host.py MODEL

It prints one line of JSON when it is ready and one when its four streams have ended: what
they got. Like the gateway it outlives SIGINT and SIGTERM. Then it waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from vllm_helpers import config, one, prompt, request  # noqa: E402

from engine.vllm.engine import VllmEngine  # noqa: E402


async def main(model: str) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)
    engine = VllmEngine(config(model))
    await engine.start()
    tasks = [
        asyncio.create_task(one(engine, request(prompt(10, i), 1500, ignore_eos=True)))
        for i in range(4)
    ]
    while engine.load().running < 4:
        await asyncio.sleep(0.01)
    seen = {"processes": engine._processes.alive(), "folder": str(engine._processes.folder)}
    print(json.dumps(seen), flush=True)
    outputs = await asyncio.gather(*tasks, return_exceptions=True)
    lengths = [
        len(output.token_ids) if not isinstance(output, BaseException) else repr(output)
        for output in outputs
    ]
    print(json.dumps({"lengths": lengths}), flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
