"""An encoder model's folder in sentence-transformers' layout, as the engine reads it.

``onnx/model.onnx`` or ``model.onnx`` is the graph; ``config.json`` and ``tokenizer.json`` are
transformers'. ``modules.json`` and ``1_Pooling/config.json`` say how token vectors become one
vector; a folder without them is averaged and normalised. Conversion leaves the same layout,
with the manifest ``gateway_encoder.json`` written last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from engine.base import EmbeddingSpace, EngineStartError
from engine.onnx_encoder.families import OFFSET_POSITIONS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST_NAME = "gateway_encoder.json"
FORMAT = 1
GRAPHS = ("onnx/model.onnx", "model.onnx")
LONGEST = 1_000_000  # tokenizers write 1e30 for "no limit"

Pooling = Literal["mean", "cls", "lasttoken", "max"]
_OLD_POOLING: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class EncoderModel:
    """A checked folder, everything but the weights in memory.

    Attributes:
        max_model_len: longest text in tokens, special tokens included.
        precision: how the weights are stored, or ``none`` for a graph that came ready.
        pad_id: fills short rows of a batch; never seen through the attention mask.
    """

    folder: Path
    graph: Path
    tokenizer: Tokenizer
    architecture: str
    vocab_size: int
    hidden_size: int
    max_model_len: int
    pad_id: int
    precision: str
    pooling: Pooling
    space: EmbeddingSpace

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``folder``; raises EngineStartError naming what is wrong with which file."""
        graph = ready_graph(folder)
        if graph is None:
            raise EngineStartError(f"{folder} has no {GRAPHS[0]}: give one with an ONNX graph")
        config = read_json(folder / "config.json")
        pooling, normalized = read_modules(folder)
        hidden = positive(folder, config, "hidden_size", "dim")
        return cls(
            folder=folder,
            graph=graph,
            tokenizer=read_tokenizer(folder),
            architecture=str(config["architectures"][0]),
            vocab_size=positive(folder, config, "vocab_size"),
            hidden_size=hidden,
            max_model_len=read_longest(folder, config),
            pad_id=config.get("pad_token_id") or 0,
            precision=read_json(folder / MANIFEST_NAME, optional=True).get("precision", "none"),
            pooling=pooling,
            space=EmbeddingSpace(hidden, normalized, read_shortened(config)),
        )


def ready_graph(folder: Path) -> Path | None:
    """The folder's own ONNX graph, if it has one."""
    return next((folder / name for name in GRAPHS if (folder / name).is_file()), None)


def read_modules(folder: Path) -> tuple[Pooling, bool]:
    """How token vectors become one, and whether that gets length 1."""
    if not (folder / "modules.json").is_file():
        return "mean", True
    modules = read_json(folder / "modules.json", kind=list)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    strange = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    if strange:
        raise EngineStartError(
            f"{folder}/modules.json asks for a {strange[0]} module, which the ONNX engine does "
            "not have: serve a model of Transformer, Pooling and Normalize"
        )
    where = next(
        (m.get("path") for m, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), None
    )
    if where is None:
        return "mean", "Normalize" in kinds
    path = folder / Path(str(where)).name / "config.json"
    return read_pooling(path), "Normalize" in kinds


def read_pooling(path: Path) -> Pooling:
    """The one pooling mode of sentence-transformers' configuration, in its old or new form."""
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
        named = _OLD_POOLING.get(on[0], on[0]) if len(on) == 1 else on
    if named not in get_args(Pooling):
        raise EngineStartError(
            f"{path} asks for pooling by {named}; the ONNX engine pools by one of "
            f"{', '.join(get_args(Pooling))}"
        )
    return named  # type: ignore[no-any-return]


def read_longest(folder: Path, config: dict[str, Any]) -> int:
    """The longest text: what the positions allow and what the model was made for."""
    longest = positive(folder, config, "max_position_embeddings", "n_positions")
    if config.get("model_type") in OFFSET_POSITIONS:
        # transformers' MPNet takes 1 for the padding token, whatever its config says.
        pad_id = 1 if config["model_type"] == "mpnet" else config.get("pad_token_id") or 0
        longest -= pad_id + 1
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        value = read_json(folder / name, optional=True).get(key)
        if isinstance(value, int) and 0 < value < LONGEST:
            longest = min(longest, value)
    return longest


def read_shortened(config: dict[str, Any]) -> frozenset[int] | None:
    """Lengths a vector may be cut to, declared as vLLM reads it."""
    named = config.get("matryoshka_dimensions")
    if isinstance(named, list) and named:
        return frozenset(size for size in named if isinstance(size, int))
    return None if config.get("is_matryoshka") else frozenset()


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer without its own cutting and padding, which would hide lost text."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise EngineStartError(
            f"{folder} has no tokenizer.json: make one with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise EngineStartError(f"{path} is not a tokenizer ({error}): copy it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def positive(folder: Path, config: dict[str, Any], *names: str) -> int:
    """A size from the config, under the first of the names that it has."""
    value = next((config[name] for name in names if name in config), None)
    if type(value) is not int or value < 1:
        raise EngineStartError(f"{folder}/config.json: {names[0]} is not a positive integer")
    return value


def read_json(path: Path, *, optional: bool = False, kind: type = dict) -> Any:
    """A JSON object or array; raises EngineStartError."""
    if optional and not path.is_file():
        return kind()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineStartError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(value, kind):
        raise EngineStartError(f"{path} does not hold what it should: copy it again")
    return value
