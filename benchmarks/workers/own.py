"""This project's ONNX engine behind its own seam: scheduler, sampler and text included."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.workers import streams
from benchmarks.workers.wire import Job, Sample, open_channel, read_job, serve
from engine.base import GenerateRequest, SamplingParams
from engine.config import EngineConfig
from engine.registry import build_engine


class Own:
    """The engine on an own event loop, driven from this synchronous worker."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ids = itertools.count()
        self._loop = asyncio.new_event_loop()
        config = EngineConfig(
            model=job.model,
            kind="onnx",
            max_model_len=job.max_len,
            max_num_seqs=job.max_streams,
            precision=job.variant,  # type: ignore[arg-type]
            threads=job.threads,
            cache_dir=Path(job.options["cache_dir"]),
        )
        self._engine = build_engine(config)
        self._loop.run_until_complete(self._engine.start())

    def info(self) -> dict[str, Any]:
        """Version, variant chosen and the weights' bytes where the graph can be found."""
        info = self._engine.info
        widths = {"fp32": 4.0, "int8": 1.0, "int8_block": 1.125, "int4": 0.625}
        variant = info.quantization
        width = widths.get(variant, widths.get(self._job.variant, 1.0))
        return {
            "version": f"onnxruntime {onnxruntime.__version__}",
            "weight_bytes": int(int(self._job.options["matmul_weights"]) * width),
            "variant": variant,
        }

    async def _stream(self, prompt: list[int], most: int) -> AsyncGenerator[int, None]:
        sampling = SamplingParams(max_tokens=most, temperature=0.0, ignore_eos=True)
        request = GenerateRequest(f"bench-{next(self._ids)}", prompt, sampling)
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                yield len(delta.token_ids)

    def prefill(self, prompt: list[int]) -> Sample:
        """Time to first token."""
        return self._loop.run_until_complete(streams.prefill(self._stream, prompt))

    def decode(self, prompts: list[list[int]], tokens: int) -> Sample:
        """Aggregate decode with all prompts running."""
        most = self._job.max_len - len(prompts[0])
        return self._loop.run_until_complete(streams.decode(self._stream, prompts, tokens, most))

    def batch(self, prompts: list[list[int]], tokens: int) -> Sample:
        """All prompts from start to end, as the HTTP part measures the server."""
        return self._loop.run_until_complete(streams.batch(self._stream, prompts, tokens))

    def close(self) -> None:
        """Stop the engine's thread."""
        self._loop.run_until_complete(self._engine.stop(0.0))


if __name__ == "__main__":
    channel = open_channel()
    serve(Own(read_job()), channel)
