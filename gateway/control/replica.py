"""One engine of this process, with what the gateway derives from its model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import jinja2.exceptions

from engine.base import Engine, EngineStartError, Load, ModelInfo
from engine.config import EngineConfig
from engine.registry import choose
from engine.supervise import Backoff, SupervisedEngine
from gateway.chat.prompt import PromptBuilder
from gateway.errors import ModelLoading

BuildEngine = Callable[[EngineConfig], Engine]
# What a request wants of a model; ``any`` for work that needs its tokenizer only.
Task = Literal["generation", "embeddings", "any"]


class Replica:
    """One supervised engine.

    Attributes:
        index: among the replicas of the model.
        name: as headers and logs show it.
        weight: its share relative to the model's other targets.
        tokens: estimated tokens of the requests that it works on, prompt and output.
        kind, reason: which engine it is and why it was chosen.
    """

    def __init__(
        self,
        config: EngineConfig,
        build: BuildEngine,
        backoff: Backoff,
        index: int = 0,
        *,
        target: str = "",
        weight: float = 1.0,
    ) -> None:
        self.config = config
        self.index = index
        self.name = f"{target or config.names[0]}/{index}"
        self.weight = weight
        self.tokens = 0
        self.kind, self.reason = choose(config)
        name = f"{config.names[0]}/{index}"
        self.engine = SupervisedEngine(name, lambda: build(config), backoff)
        self._prompts: PromptBuilder | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes requests now."""
        return self._prompts is not None and self.engine.ready

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken requests."""
        return self._prompts is not None

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self.engine.info

    def does(self, task: Task) -> bool:
        """Whether the loaded model does this."""
        can = self.info.capabilities
        return {"generation": can.generation, "embeddings": can.embeddings, "any": True}[task]

    @property
    def prompts(self) -> PromptBuilder:
        """Builds prompts for this model; only once it has been ready."""
        if self._prompts is None:
            raise ModelLoading("The model is still loading. Please retry shortly.")
        return self._prompts

    @property
    def outstanding(self) -> int:
        """Requests queued and running."""
        load = self.engine.load()
        return load.waiting + load.running

    def load(self) -> Load:
        """What its engine holds now."""
        return self.engine.load()

    def has_same_weights(self, other: Replica) -> bool:
        """Whether a generation of one can be carried on by the other."""
        mine, its = self.config, other.config
        return (mine.model, mine.revision) == (its.model, its.revision)

    async def start(self) -> None:
        """Load the model once. Raises EngineStartError."""
        await self.engine.start()
        await self.prepare()

    async def prepare(self) -> None:
        """Build what depends on the loaded model; raises EngineStartError."""
        if self._prompts is None:
            self._prompts = await asyncio.to_thread(prepare_prompts, self.engine, self.config)

    def close(self) -> None:
        """Free what the gateway holds of the model."""
        if self._prompts is not None:
            self._prompts.close()


def prepare_prompts(engine: SupervisedEngine, config: EngineConfig) -> PromptBuilder:
    """The prompt builder of a model; raises EngineStartError for a broken chat template."""
    info = engine.info
    try:
        return PromptBuilder(
            info,
            tool_parser=config.tool_parser,
            reasoning_parser=config.reasoning_parser,
            renderer=engine,
        )
    except jinja2.exceptions.TemplateError as error:
        raise EngineStartError(
            f"The chat template of {info.source} is not valid Jinja: {error}"
        ) from None
