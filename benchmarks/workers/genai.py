"""onnxruntime-genai: its Generator with a static batch, as its CPU build offers it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from benchmarks.workers.weights import onnx_weight_bytes
from benchmarks.workers.wire import Job, Sample, open_channel, read_job, serve


class GenAi:
    """One model; a fresh Generator per measurement, made outside the timed part."""

    def __init__(self, job: Job) -> None:
        self._job = job
        config = og.Config(job.model)
        options = {"intra_op_num_threads": job.threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)

    def info(self) -> dict[str, Any]:
        """Version and the bytes of weights a decode step reads."""
        return {
            "version": f"onnxruntime-genai {og.__version__}",
            "weight_bytes": onnx_weight_bytes(Path(self._job.model) / "model.onnx"),
            "variant": self._job.variant,
        }

    def _generator(self, prompts: list[list[int]], tokens: int) -> og.Generator:
        params = og.GeneratorParams(self._model)
        length = len(prompts[0]) + tokens
        # min_length keeps a random end-of-sequence token from ending the batch early.
        params.set_search_options(
            batch_size=len(prompts), max_length=length, min_length=length, do_sample=False
        )
        return og.Generator(self._model, params)

    def prefill(self, prompt: list[int]) -> Sample:
        """Time from appending the prompt to its first token."""
        generator = self._generator([prompt], 2)
        start = time.perf_counter()
        generator.append_tokens(np.asarray([prompt], np.int32))
        generator.generate_next_token()
        generator.get_next_tokens()
        return Sample(len(prompt), time.perf_counter() - start)

    def decode(self, prompts: list[list[int]], tokens: int) -> Sample:
        """Prefill the batch, then time ``tokens`` steps of it."""
        generator = self._generator(prompts, tokens + 2)
        generator.append_tokens(np.asarray(prompts, np.int32))
        generator.generate_next_token()
        generator.get_next_tokens()
        made = 0
        start = time.perf_counter()
        for _ in range(tokens):
            generator.generate_next_token()
            made += len(generator.get_next_tokens())
        return Sample(made, time.perf_counter() - start)

    def close(self) -> None:
        """Nothing outlives the process."""


if __name__ == "__main__":
    channel = open_channel()
    serve(GenAi(read_job()), channel)
