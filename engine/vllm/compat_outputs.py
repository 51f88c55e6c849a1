"""The vLLM internals that the short way of outputs goes past; ``compat`` has all others.

Read and run against 0.32.0. What is looked for is looked at first: where a vLLM is built
otherwise, outputs take vLLM's own way.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from engine.vllm.intake import Inbox, Intake
from engine.vllm.receiver import Receiver


def divert(llm: Any, counters: Any) -> Intake | None:
    """Put an ``Intake`` between an AsyncLLM's two tasks, before its first request.

    None where this vLLM is not built as expected, or was told to do more per token than to
    pass it on; then all outputs come through ``AsyncLLM.generate``.
    """
    core, processor = llm.engine_core, llm.output_processor
    is_lazy = getattr(getattr(core, "resources", None), "output_queue_task", core) is None
    as_known = (
        is_lazy
        and llm.output_handler is None
        and isinstance(getattr(core, "outputs_queue", None), asyncio.Queue)
        and isinstance(getattr(processor, "request_states", None), dict)
        and "internal" in inspect.signature(llm.abort).parameters
    )
    if not as_known or processor.stream_interval != 1 or processor.tracing_enabled:
        return None
    core.outputs_queue = intake = Intake(core.outputs_queue, counters)
    return intake


def listen(llm: Any) -> None:
    """Receive EngineCore's messages through a ``Receiver``; on the event loop, before anything
    is asked of ``llm``. Where this vLLM is not built as expected, all stays as it is."""
    core = llm.engine_core
    resources: Any = getattr(core, "resources", None)
    begin = getattr(core, "_ensure_output_queue_task", None)
    socket = getattr(resources, "output_socket", None)
    if begin is None or socket is None or getattr(resources, "output_queue_task", core) is not None:
        return
    resources.output_socket = receiver = Receiver(socket)
    try:
        begin()  # keeps the socket that it finds
    finally:
        resources.output_socket = socket
    resources.output_queue_task.add_done_callback(lambda _: receiver.close())


async def submit(
    llm: Any, intake: Intake, inbox: Inbox, prompt: Any, params: Any, request_id: str, **how: Any
) -> str:
    """Begin a request of one choice whose outputs go to ``inbox``; the id to abort it by."""
    collector = await llm.add_request(request_id, prompt, params, **how)
    internal_id = str(collector.request_id)
    state = llm.output_processor.request_states.get(internal_id)
    if state is not None:
        state.queue = inbox
    if collector.output is not None:
        inbox.put(collector.output)
    intake.register(internal_id, inbox)
    return internal_id
