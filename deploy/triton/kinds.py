"""From a source to the models of its repository: a decoder, an encoder, a graph, or vLLM's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from deploy.triton.checks import check_decoder
from deploy.triton.configs import Queueing, Running, ensemble_config, model_config, text
from deploy.triton.errors import TritonError
from deploy.triton.parts import Part, graph_files, int8_rule, served
from deploy.triton.tensors import Signature, Tensor, read_graph
from deploy.triton.vllm_rules import FILE as VLLM_FILE
from deploy.triton.vllm_rules import check_arguments
from engine.models.find import BUNDLED_NAME, BundledModel
from engine.onnx.prepared import MANIFEST_NAME, MODEL_NAME, PreparedModel
from engine.onnx_encoder.layout import EncoderModel, ready_graph

Backend = Literal["auto", "python", "onnxruntime", "vllm"]
DEFAULT_BATCH = 8
BUCKET = 16
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asks of a repository.

    Attributes:
        name: of the model that clients call; "" takes the source's.
        slots: sequences that a decoder generates at once.
        max_model_len: prompt plus output of a decoder, at most its own; 0 takes that.
        chat: whether a decoder's text is a user message, where it has a chat template.
        engine_arguments: for vLLM, beside the model.
    """

    name: str = ""
    backend: Backend = "auto"
    queueing: Queueing = field(default_factory=Queueing)
    running: Running = field(default_factory=Running)
    slots: int = 4
    max_model_len: int = 0
    chat: bool = True
    engine_arguments: Mapping[str, Any] = field(default_factory=dict)


def plan(source: str, wishes: Wishes) -> list[Part]:
    """The models for ``source``, the one that clients call last; raises EngineStartError."""
    wishes.queueing.check()
    path = BundledModel().shipped if source == BUNDLED_NAME else Path(source).expanduser()
    given = wishes.name or (source if source == BUNDLED_NAME else path.resolve().stem)
    wishes = replace(wishes, name=wishes.name or re.sub(r"[^\w.-]", "_", given))
    if not NAME.fullmatch(wishes.name):
        raise TritonError(
            f"{wishes.name!r} is not a model's name: give --name letters, digits, dots, dashes "
            "and underscores"
        )
    if wishes.backend == "vllm":
        return plan_vllm(str(path) if path.is_dir() else source, wishes)
    if not path.exists():
        raise TritonError(
            f"there is no {source}: give bundled, a prepared folder, a folder with an ONNX graph, "
            "or an .onnx file (a hub id only with --backend vllm)"
        )
    if wishes.backend == "auto":
        wishes = replace(wishes, backend="python")
    if wishes.running.device == "gpu" and wishes.backend == "python":
        raise TritonError(
            "the Python models run on the CPU: take --backend onnxruntime for --device gpu"
        )
    if path.is_file():
        return plan_graph(path, wishes)
    if (path / MANIFEST_NAME).is_file():
        return plan_decoder(path, wishes)
    graph = ready_graph(path)
    if graph is None:
        raise TritonError(
            f"{path} has no model.onnx: convert the model first ('llm-gateway model convert'), or "
            "take --backend vllm for a Hugging Face folder"
        )
    if (path / "tokenizer.json").is_file() and (path / "config.json").is_file():
        return plan_encoder(path, wishes)
    return plan_graph(graph, wishes)


def plan_graph(path: Path, wishes: Wishes) -> list[Part]:
    """Any ONNX graph, its tensors those of the request."""
    signature = read_graph(path)
    part = _graph_part(wishes.name, path, signature, wishes)
    return [part]


def plan_encoder(folder: Path, wishes: Wishes) -> list[Part]:
    """Tokenizer, encoder and pooling, and the ensemble of them: texts to vectors."""
    model = EncoderModel.read(folder)
    signature = read_graph(model.graph)
    made = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
    if strange := sorted({tensor.name for tensor in signature.inputs} - made):
        raise TritonError(
            f"{model.graph} takes {strange[0]}, which no tokenizer gives: export the .onnx file "
            "by itself"
        )
    names = {tensor.name: tensor for tensor in signature.outputs}
    chosen = next(
        (n for n in ("sentence_embedding", "last_hidden_state", "token_embeddings") if n in names),
        None,
    )
    if chosen is None:
        raise TritonError(
            f"{model.graph} gives {', '.join(names)} and no token vectors: export the .onnx file "
            "by itself"
        )
    name = wishes.name
    encoder = _graph_part(
        f"{name}_encoder", model.graph, Signature(signature.inputs, (names[chosen],)), wishes
    )
    batch = encoder.config["max_batch_size"]
    if not batch:
        raise TritonError(f"{model.graph} takes no batches: export it with a varying first size")
    pools = chosen != "sentence_embedding"
    mask = Tensor("attention_mask", "TYPE_INT64", (-1, -1))
    wanted = list(signature.inputs)
    if pools and mask.name not in {tensor.name for tensor in wanted}:
        wanted.append(mask)
    tokenizer = model_config(
        f"{name}_tokenizer",
        "python",
        Signature((_rows(text("text_input")),), tuple(wanted)),
        batch,
        running=Running(wishes.running.instances),
        parameters={"longest": model.max_model_len, "pad_id": model.pad_id, "bucket": BUCKET},
    )
    parts = [
        Part(tokenizer, served("tokenize_batch") | {"tokenizer.json": folder / "tokenizer.json"}),
        encoder,
    ]
    vector = Tensor("embedding", "TYPE_FP32", (-1, model.hidden_size))
    if pools:
        pooling = model_config(
            f"{name}_pooling",
            "python",
            Signature((names[chosen], mask), (vector,)),
            batch,
            running=Running(wishes.running.instances),
            parameters={
                "pooling": model.pooling,
                "normalize": str(model.space.normalized).lower(),
            },
        )
        parts.append(Part(pooling, served("pool")))
    ensemble = ensemble_config(
        name,
        Signature((_rows(text("text_input")),), (vector,)),
        batch,
        [part.config for part in parts],
        {} if pools else {chosen: "embedding"},
    )
    return [*parts, Part(ensemble)]


def plan_decoder(folder: Path, wishes: Wishes) -> list[Part]:
    """Tokenizer, generation and detokenizer, and the ensemble of them: text to text."""
    if wishes.backend == "onnxruntime":
        raise TritonError(
            "generation keeps keys and values between steps, which Triton's onnxruntime backend "
            "cannot: take --backend python"
        )
    model = PreparedModel.read(folder)
    check_decoder(folder, read_graph(model.model_path))
    longest = wishes.max_model_len or model.manifest.max_model_len
    if not 2 <= longest <= model.manifest.max_model_len:
        raise TritonError(
            f"--max-model-len {longest} is not between 2 and the model's "
            f"{model.manifest.max_model_len}"
        )
    name, ids = wishes.name, Tensor("input_ids", "TYPE_INT64", (-1,))
    options = (
        replace(text("sampling_parameters"), optional=True),
        Tensor("stream", "TYPE_BOOL", (1,), optional=True),
    )
    tokenizer = model_config(
        f"{name}_tokenizer",
        "python",
        Signature((text("text_input"),), (ids,)),
        0,
        running=Running(wishes.running.instances),
    )
    made = (
        Tensor("output_ids", "TYPE_INT64", (-1,)),
        Tensor("sent", "TYPE_INT32", (1,)),
        Tensor("final", "TYPE_BOOL", (1,)),
    )
    generate = model_config(
        f"{name}_generate",
        "python",
        Signature((ids, *options), made),
        0,
        running=wishes.running,
        queueing=wishes.queueing,
        parameters={
            "slots": wishes.slots,
            "max_model_len": longest,
            "intra_op_thread_count": wishes.running.threads,
        },
        decoupled=True,
    )
    # A second instance could overtake the first and swap two pieces of one answer.
    output = Tensor("text_output", "TYPE_STRING", (1,))
    detokenizer = model_config(
        f"{name}_detokenizer", "python", Signature(made, (output,)), 0, running=Running()
    )
    configs = [tokenizer, generate, detokenizer]
    ensemble = ensemble_config(
        name, Signature((text("text_input"), *options), (output,)), 0, configs
    )
    words: dict[str, Path | str] = {"tokenizer.json": folder / "tokenizer.json"}
    template: dict[str, Path | str] = {}
    if wishes.chat and model.chat_template is not None:
        template["chat_template.jinja"] = model.chat_template
        template["special_tokens.json"] = json.dumps(model.template_globals)
    weights = graph_files(folder / MODEL_NAME) | {MANIFEST_NAME: folder / MANIFEST_NAME}
    return [
        Part(tokenizer, served("tokenize_prompt") | words | template),
        Part(generate, served("generate", "decoder", "options") | int8_rule() | weights),
        Part(detokenizer, served("detokenize") | words),
        Part(ensemble),
    ]


def plan_vllm(model: str, wishes: Wishes) -> list[Part]:
    """A model of Triton's vLLM backend, which completes inputs and outputs by itself."""
    arguments = {"model": model, **wishes.engine_arguments}
    if wishes.max_model_len:
        arguments["max_model_len"] = wishes.max_model_len
    check_arguments(arguments, VLLM_FILE)
    config = {
        "name": wishes.name,
        "backend": "vllm",
        # vLLM batches inside, over its own queue: Triton has to hand requests on at once.
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": True},
        "instance_group": [{"kind": "KIND_MODEL", "count": 1}],
        "version_policy": {"latest": {"num_versions": 1}},
    }
    return [Part(config, {VLLM_FILE: json.dumps(arguments, indent=2) + "\n"})]


def _graph_part(name: str, path: Path, signature: Signature, wishes: Wishes) -> Part:
    asked = wishes.queueing.max_batch_size
    batch = asked if asked is not None else DEFAULT_BATCH * signature.batches
    parameters = {"intra_op_thread_count": wishes.running.threads}
    config = model_config(
        name,
        str(wishes.backend),
        signature,
        batch,
        running=wishes.running,
        queueing=wishes.queueing,
        parameters=parameters,
    )
    files = graph_files(path)
    if wishes.backend == "python":
        files |= served("graph") | int8_rule()
    return Part(config, files)


def _rows(tensor: Tensor) -> Tensor:
    """With a batch dimension in front."""
    return replace(tensor, shape=(-1, *tensor.shape))
