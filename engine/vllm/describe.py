"""What the gateway must know of a model that vLLM has loaded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from engine.base import Capabilities, EngineStartError, ModelInfo
from engine.config import EngineConfig
from engine.generation_defaults import default_sampling
from engine.models.find import BundledModel, HubModel, locate
from engine.vllm import images


def resolve(config: EngineConfig) -> tuple[str, str | None]:
    """Folder or hub id of the model, and its revision; EngineStartError when it is neither."""
    found = locate(config.model, config.revision)
    if isinstance(found, HubModel):
        return found.id, found.revision
    folder = found.checkpoint if isinstance(found, BundledModel) else found.path
    if not folder.is_dir():
        raise EngineStartError("the bundled model is not part of this installation")
    return str(folder), None


def model_info(
    config: EngineConfig, engine: Any, quantization: str, device: str, adapters: Iterable[str]
) -> ModelInfo:
    """Read a built ``AsyncLLM``'s configuration. Raises EngineStartError without a tokenizer."""
    model = engine.vllm_config.model_config
    tokenizer = engine.get_tokenizer()
    names = config.names
    seen = images.support(engine)
    return ModelInfo(
        id=names[0],
        aliases=names[1:],
        source=config.model,
        max_model_len=int(model.max_model_len),
        vocab_size=int(model.get_vocab_size()),
        tokenizer=_fast_tokenizer(tokenizer),
        chat_template=images.chat_template(engine) or _chat_template(tokenizer),
        template_globals=_template_globals(tokenizer),
        eos_token_ids=_eos_ids(model, tokenizer),
        created=int(time.time()),
        engine="vllm",
        quantization=quantization,
        device=device,
        dtype=str(model.dtype).removeprefix("torch."),
        default_sampling=default_sampling(model.try_get_generation_config() or {}),
        capabilities=Capabilities(
            structured_output=True,
            lora=any(True for _ in adapters),
            images=seen is not None,
            max_logprobs=_max_logprobs(model),
        ),
        images=seen,
    )


def _max_logprobs(model: Any) -> int:
    # -1 means any number, which is the vocabulary.
    return int(model.max_logprobs) if model.max_logprobs >= 0 else int(model.get_vocab_size())


def _fast_tokenizer(tokenizer: Any) -> Any:
    """A copy of the Rust tokenizer: vLLM goes on using its own at the same time."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None) or getattr(
        tokenizer, "_tokenizer", None
    )
    if not isinstance(backend, Tokenizer):
        raise EngineStartError(
            f"the model's tokenizer ({type(tokenizer).__name__}) has no tokenizer.json form: "
            "add a tokenizer.json to the model's folder"
        )
    return Tokenizer.from_str(backend.to_str())


def _chat_template(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _template_globals(tokenizer: Any) -> dict[str, str]:
    found = getattr(tokenizer, "special_tokens_map", {})
    return {name: str(value) for name, value in found.items() if isinstance(value, str)}


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    # The two places in which vLLM itself looks.
    generation = model.try_get_generation_config() or {}
    found = generation.get("eos_token_id")
    ids = [*found] if isinstance(found, (list, tuple)) else [found]
    ids.append(getattr(tokenizer, "eos_token_id", None))
    return frozenset(int(token) for token in ids if token is not None)
