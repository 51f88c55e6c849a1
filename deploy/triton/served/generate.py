"""Triton model: the token ids of a prompt to generated ids, streamed (decoupled).

Needs onnxruntime. Requests share every step: one that arrives joins those that run. While
every slot is taken, ``execute`` waits, so that further requests stay in Triton's own queue,
where priorities, time limits and the queue's size count. Parameters: ``slots``,
``max_model_len`` and ``intra_op_thread_count``.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from decoder import Decoder
from options import BadOption, Options, choose


class Job:
    """One request in flight. Raises BadOption when it cannot be served.

    Attributes:
        sent: generated tokens that the last response had.
    """

    def __init__(self, request: Any, max_model_len: int) -> None:
        self.prompt: list[int] = (
            pb.get_input_tensor_by_name(request, "input_ids").as_numpy().tolist()
        )
        given = json.loads(request.parameters() or "{}")
        written = pb.get_input_tensor_by_name(request, "sampling_parameters")
        if written is not None:
            try:
                extra = json.loads(written.as_numpy().reshape(-1)[0])
            except (ValueError, UnicodeDecodeError) as error:
                raise BadOption(f"sampling_parameters is not JSON: {error}") from error
            if not isinstance(extra, dict):
                raise BadOption("sampling_parameters is not a JSON object")
            given |= extra
        self.options = Options.read(given)
        if not 0 < len(self.prompt) < max_model_len:
            raise BadOption(
                f"the prompt has {len(self.prompt)} tokens and the model holds {max_model_len} "
                "with at least one generated"
            )
        self.options.max_tokens = min(self.options.max_tokens, max_model_len - len(self.prompt))
        stream = pb.get_input_tensor_by_name(request, "stream")
        self.stream = stream is not None and bool(stream.as_numpy().reshape(-1)[0])
        self.draws = np.random.default_rng(self.options.seed)
        self.sender = request.get_response_sender()
        self.made: list[int] = []
        self.sent = 0

    @property
    def held(self) -> int:
        """Tokens in the slot: all but the newest, which the next step appends."""
        return len(self.prompt) + len(self.made) - 1

    def take(self, token: int, stops: frozenset[int]) -> bool:
        """Add a token and answer what is due; returns whether the job is done."""
        stopped = token in stops and not self.options.ignore_eos
        if not stopped:
            self.made.append(token)
        done = stopped or len(self.made) >= self.options.max_tokens
        if done or self.stream:
            self._respond(done)
        return done

    def fail(self, message: str) -> None:
        """End with an error."""
        send_error(self.sender, message)

    def _respond(self, done: bool) -> None:
        tensors = [
            pb.Tensor("output_ids", np.array(self.made, np.int64)),
            pb.Tensor("sent", np.array([self.sent], np.int32)),
            pb.Tensor("final", np.array([done])),
        ]
        flags = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if done else 0
        self.sender.send(pb.InferenceResponse(tensors), flags=flags)
        self.sent = len(self.made)


class TritonPythonModel:
    """One instance: one thread steps all of its sequences."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph and start the stepping thread."""
        folder = Path(args["model_repository"]) / args["model_version"]
        told = json.loads(args["model_config"])["parameters"]
        slots, threads = (
            int(told[name]["string_value"]) for name in ("slots", "intra_op_thread_count")
        )
        self._max_len = int(told["max_model_len"]["string_value"])
        sizes = json.loads((folder / "gateway_model.json").read_text("utf-8"))
        place = folder / "model.onnx"
        path = place / "model.onnx" if place.is_dir() else place
        self._decoder = Decoder(path, sizes, slots, self._max_len, threads)
        self._stops = frozenset(sizes["eos_token_ids"])
        self._free = threading.Semaphore(slots)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._running: list[Job] = []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand requests to the stepping thread, which answers them."""
        for request in requests:
            try:
                job = Job(request, self._max_len)
            except (BadOption, TypeError) as error:
                send_error(request.get_response_sender(), str(error), pb.TritonError.INVALID_ARG)
                continue
            self._free.acquire()
            self._inbox.put(job)

    def finalize(self) -> None:
        """Called when no request is in flight any more."""
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            try:
                job = self._inbox.get(block=not self._running)
                if job is None:
                    return
                self._join(job)
            except queue.Empty:
                self._step()

    def _join(self, job: Job) -> None:
        try:
            logits = self._decoder.prefill(len(self._running), job.prompt)
        except Exception as error:  # onnxruntime's exceptions share no base
            job.fail(f"the prompt could not be run: {error}")
            self._free.release()
            return
        if self._advance(job, logits[0]):
            self._free.release()
        else:
            self._running.append(job)

    def _step(self) -> None:
        """One more token for everything that runs."""
        try:
            tokens = [job.made[-1] for job in self._running]
            logits = self._decoder.decode(tokens, [job.held for job in self._running])
        except Exception as error:
            for job in self._running:
                job.fail(f"a step failed: {error}")
                self._free.release()
            self._running.clear()
            return
        # From the end, so that what moves into a freed slot has been looked at.
        for slot in reversed(range(len(self._running))):
            job = self._running[slot]
            if not self._advance(job, logits[slot]):
                continue
            last = self._running.pop()
            if last is not job:
                self._decoder.move(len(self._running), slot, last.held)
                self._running[slot] = last
            self._free.release()

    def _advance(self, job: Job, logits: Any) -> bool:
        """Choose the job's next token; returns whether its slot is free now."""
        try:
            if not job.sender.is_cancelled():
                return job.take(choose(logits, job.options, job.draws), self._stops)
            job.fail("cancelled")
        except Exception as error:  # one job's trouble must not end the thread
            job.fail(f"no token could be chosen: {error}")
        return True


def send_error(sender: Any, message: str, code: int | None = None) -> None:
    """The last response of a request that failed."""
    problem = pb.TritonError(message) if code is None else pb.TritonError(message, code)
    sender.send(pb.InferenceResponse(error=problem), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
