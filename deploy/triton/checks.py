"""The rules of one model: its config, its version folders, and its graph."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.triton.errors import TritonError
from deploy.triton.schema import Config
from deploy.triton.tensors import Signature, Tensor, fits, read_graph, signature_of
from deploy.triton.vllm_rules import check_vllm

GRAPH = "model.onnx"
# The file that a backend opens in a version's folder (config field default_model_filename).
FILES = {"onnxruntime": GRAPH, "python": "model.py", "vllm": "model.json"}


def check_model(folder: Path, config: Config) -> list[str]:
    """Hold a model's folder against its config.

    Returns what could not be checked here, and why. Raises TritonError for what is wrong.
    """
    where = f"{folder.name}/config.pbtxt"
    if config.get("name") != folder.name:
        raise TritonError(
            f"{where} names the model {config.get('name', '')!r}: Triton wants the folder's name"
        )
    versions = _versions(folder)
    if config.get("platform") == "ensemble":
        return []
    backend = config.get("backend", "")
    if backend == "vllm":
        return [note for version in versions for note in check_vllm(version, config)]
    _check_tensors(where, config)
    _check_queue(where, config)
    if backend not in FILES:
        return [f"{folder.name}: its backend {backend!r} is not one that is known here"]
    for version in versions:
        if not (version / FILES[backend]).exists():
            raise TritonError(f"{folder.name}/{version.name} has no {FILES[backend]}")
        graph = graph_path(version)
        if graph is not None and not (version / "gateway_model.json").is_file():
            check_graph(where, config, read_graph(graph))
    return []


def graph_path(version: Path) -> Path | None:
    """The ONNX file of a version: ``model.onnx``, or in a folder of that name with its weights."""
    place = version / GRAPH
    path = place / GRAPH if place.is_dir() else place
    return path if path.is_file() else None


def check_graph(where: str, config: Config, graph: Signature) -> None:
    """Names, types, shapes and the batch dimension are those of the graph."""
    told = signature_of(config, reshaped=True)
    batched = config.get("max_batch_size", 0) > 0
    scalars = config.get("backend") == "python"
    for kind, mine, theirs in (
        ("input", told.inputs, graph.inputs),
        ("output", told.outputs, graph.outputs),
    ):
        known = {tensor.name: tensor for tensor in theirs}
        for tensor in mine:
            if tensor.name not in known:
                raise TritonError(
                    f"{where}: the graph has no {kind} {tensor.name}, only {', '.join(known)}"
                )
            _compare(
                f"{where}: the {kind} {tensor.name}", tensor, known[tensor.name], batched, scalars
            )
        if kind == "input" and (missing := sorted(known.keys() - {t.name for t in mine})):
            raise TritonError(f"{where} leaves out the graph's input {missing[0]}")


def _compare(what: str, told: Tensor, graph: Tensor, batched: bool, scalars: bool) -> None:
    if told.kind != graph.kind:
        raise TritonError(f"{what} is {told.kind} and {graph.kind} in the graph")
    if batched and graph.shape[:1] != (-1,):
        raise TritonError(
            f"{what} has no batch dimension in the graph, where its shape is {list(graph.shape)}: "
            "set max_batch_size to 0, or export the graph with a varying first dimension"
        )
    if not batched and not graph.shape:
        if scalars and told.shape == (1,):
            return
        raise TritonError(
            f"{what} is a scalar in the graph, which Triton has only with batches: give it dims "
            "[ 1 ] with the python backend's model, or export the graph with one dimension more"
        )
    if not fits(told.shape, graph.shape):
        raise TritonError(f"{what} is {list(told.shape)} and {list(graph.shape)} in the graph")


def _versions(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name.isdecimal() and str(int(path.name)) == path.name
    ]
    versions = sorted((path for path in found if int(path.name) > 0), key=lambda p: int(p.name))
    if not versions:
        raise TritonError(f"{folder.name} has no version folder: add one named 1")
    return versions


def _check_tensors(where: str, config: Config) -> None:
    for kind in ("input", "output"):
        entries = config.get(kind, [])
        if not entries:
            raise TritonError(f"{where} has no {kind}")
        names = [entry.get("name", "") for entry in entries]
        for name in names:
            if not name or names.count(name) > 1:
                raise TritonError(f"{where}: every {kind} needs a name of its own, not {name!r}")
        for entry in entries:
            if not entry.get("dims"):
                raise TritonError(
                    f"{where}: the {kind} {entry['name']} has no dims: give one value dims [ 1 ]"
                )
            if any(size == 0 or size < -1 for size in entry["dims"]):
                raise TritonError(
                    f"{where}: the {kind} {entry['name']} has a size of 0 or below -1"
                )
            if entry.get("data_type", "TYPE_INVALID") == "TYPE_INVALID":
                raise TritonError(f"{where}: the {kind} {entry['name']} has no data_type")


def _check_queue(where: str, config: Config) -> None:
    largest = config.get("max_batch_size", 0)
    if largest < 0:
        raise TritonError(f"{where}: max_batch_size is {largest}: set 0 or more")
    queue = config.get("dynamic_batching", {})
    if above := [size for size in queue.get("preferred_batch_size", []) if not 0 < size <= largest]:
        raise TritonError(
            f"{where}: the preferred batch size {above[0]} is not between 1 and max_batch_size, "
            f"{largest}"
        )
    levels = queue.get("priority_levels", 0)
    default = queue.get("default_priority_level", 0)
    if levels and not 1 <= default <= levels:
        raise TritonError(f"{where}: default_priority_level {default} is not one of {levels}")
    for level in queue.get("priority_queue_policy", {}):
        if not 1 <= int(level) <= levels:
            raise TritonError(f"{where}: there is a policy for priority {level} of {levels}")
    for group in config.get("instance_group", []):
        if group.get("count", 1) < 1:
            raise TritonError(f"{where}: an instance_group has a count below 1")


def check_decoder(manifest_folder: Path, graph: Signature) -> None:
    """The graph is one that ``served/decoder.py`` can run; raises TritonError."""
    manifest = json.loads((manifest_folder / "gateway_model.json").read_text(encoding="utf-8"))
    kv = [f"{i}.{kind}" for i in range(manifest["num_layers"]) for kind in ("key", "value")]
    heads, width = manifest["num_kv_heads"], manifest["head_dim"]
    cache = (-1, heads, -1, width)
    wanted = {
        "input_ids": ("TYPE_INT64", (-1, -1)),
        "seqlens_k": ("TYPE_INT32", (-1,)),
        "total_sequence_length": ("TYPE_INT32", ()),
        "logit_idx": ("TYPE_INT64", (-1,)),
    } | {f"past_key_values.{name}": ("TYPE_FP32", cache) for name in kv}
    made = {"logits": ("TYPE_FP32", (-1, manifest["vocab_size"]))} | {
        f"present.{name}": ("TYPE_FP32", cache) for name in kv
    }
    for kind, tensors, expected in (
        ("input", graph.inputs, wanted),
        ("output", graph.outputs, made),
    ):
        names = {tensor.name for tensor in tensors}
        if differing := sorted(names ^ expected.keys()):
            raise TritonError(
                f"the graph and gateway_model.json differ in the {kind} {differing[0]}: convert "
                "the model again"
            )
        for tensor in tensors:
            dtype, shape = expected[tensor.name]
            if tensor.kind != dtype or not fits(tensor.shape, shape):
                raise TritonError(
                    f"the graph's {kind} {tensor} is not the manifest's {dtype} {list(shape)}: "
                    "convert the model again"
                )
