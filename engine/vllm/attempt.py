"""One request on a loaded AsyncLLM, by vLLM's own way or the short one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from engine.base import Delta, EngineError, GenerateRequest
from engine.detokenize import Detokenizer
from engine.vllm import compat, compat_outputs, convert, images
from engine.vllm.build import Built
from engine.vllm.intake import Inbox
from engine.vllm.outputs import Diverged, Outputs


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs requests that have been admitted.

    Attributes:
        eos: ids that end a generation.
        failure: the seam's exception for one of vLLM's.
    """

    built: Built
    eos: frozenset[int]
    detokenizer: Detokenizer
    failure: Callable[[Exception], EngineError]

    def takes_short_way(self, request: GenerateRequest) -> bool:
        """Whether ``submitted`` serves this request."""
        return self.built.intake is not None and convert.is_plain(request)

    @asynccontextmanager
    async def submitted(self, request: GenerateRequest) -> AsyncIterator[tuple[Inbox, Outputs]]:
        """The short way: where the outputs of the request come in, and what reads them.

        Leaving aborts what still runs. Raises EngineError from the block and on entering.
        """
        llm, intake = self.built.llm, self.built.intake
        assert intake is not None
        outputs = Outputs(request, self.eos, self.detokenizer, False)
        inbox, internal_id = Inbox(), None
        try:
            prompt, params = self._inputs(request, False)
            internal_id = await compat_outputs.submit(
                llm, intake, inbox, prompt, params, request.request_id, **self._how(request)
            )
            yield inbox, outputs
        except asyncio.CancelledError:
            if internal_id is None:  # while it was handed over, so perhaps it runs
                await llm.abort(request.request_id)
            raise
        except EngineError:
            raise
        except Exception as error:
            raise self.failure(error) from error
        finally:
            if internal_id is not None:
                intake.forget(internal_id)
                if not inbox.ended:
                    await llm.abort(internal_id, internal=True)

    async def long_way(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """vLLM's own way, which serves every request."""
        if request.resume is None:
            source = self._attempt(request, False)
        else:
            source = self._carry_on(request)
        async with contextlib.aclosing(source) as stream:
            async for delta in stream:
                yield delta

    async def _carry_on(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        replay = convert.replayable(request)
        try:
            async with contextlib.aclosing(self._attempt(request, replay)) as stream:
                async for delta in stream:
                    yield delta
            return
        except Diverged:
            if request.sampling.structured is not None:
                raise EngineError(
                    "the structured output that another engine began cannot be carried on here"
                ) from None
        async with contextlib.aclosing(self._attempt(request, False)) as stream:
            async for delta in stream:
                yield delta

    async def _attempt(self, request: GenerateRequest, replay: bool) -> AsyncGenerator[Delta, None]:
        outputs = Outputs(request, self.eos, self.detokenizer, replay)
        source = None
        try:
            prompt, params = self._inputs(request, replay)
            source = self.built.llm.generate(
                prompt, params, request.request_id, **self._how(request)
            )
            async for output in source:
                for delta in outputs.deltas(output):
                    yield delta
                if outputs.finished and not output.finished:
                    return  # a stop string: vLLM is told by closing its generator
        except (EngineError, Diverged):
            raise
        except Exception as error:
            raise self.failure(error) from error
        finally:
            if source is not None:
                await source.aclose()

    def _inputs(self, request: GenerateRequest, replay: bool) -> tuple[Any, Any]:
        prompt = images.engine_input(request, convert.prompt_ids(request, replay))
        compat.check_admission(self.built.llm, request.sampling.n)
        return prompt, convert.sampling_params(request, replay)

    def _how(self, request: GenerateRequest) -> dict[str, Any]:
        adapter = self.built.adapters.get(request.lora) if request.lora else None
        return {"lora_request": adapter, "priority": request.priority}
