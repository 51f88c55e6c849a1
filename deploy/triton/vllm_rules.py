"""The rules of a model of Triton's vLLM backend (triton-inference-server/vllm_backend, model.py).

That backend needs a GPU image, so these rules stand in for a trial run: it opens ``model.json``,
passes it to ``AsyncEngineArgs`` and completes config.pbtxt with inputs and outputs of its own.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

from deploy.triton.errors import TritonError
from deploy.triton.schema import Config

FILE = "model.json"
# What the backend adds where a config leaves it out; a config may not tell otherwise.
INPUTS: dict[str, tuple[str, list[int]]] = {
    "text_input": ("TYPE_STRING", [1]),
    "image": ("TYPE_STRING", [-1]),
    "stream": ("TYPE_BOOL", [1]),
    "sampling_parameters": ("TYPE_STRING", [1]),
    "exclude_input_in_output": ("TYPE_BOOL", [1]),
    "return_finish_reason": ("TYPE_BOOL", [1]),
    "return_cumulative_logprob": ("TYPE_BOOL", [1]),
    "return_logprobs": ("TYPE_BOOL", [1]),
    "return_num_input_tokens": ("TYPE_BOOL", [1]),
    "return_num_output_tokens": ("TYPE_BOOL", [1]),
    "embedding_request": ("TYPE_STRING", [1]),
}


def check_vllm(version: Path, config: Config) -> list[str]:
    """Check one version. Returns what could not be checked; raises TritonError."""
    where = f"{config['name']}/config.pbtxt"
    if config.get("max_batch_size", 0):
        raise TritonError(f"{where}: vLLM batches by itself: set max_batch_size to 0")
    if config.get("model_transaction_policy", {"decoupled": True}).get("decoupled") is not True:
        raise TritonError(f"{where}: vLLM streams: set model_transaction_policy decoupled to true")
    for entry in config.get("input", []):
        known = INPUTS.get(entry.get("name", ""))
        if known and known != (entry.get("data_type"), entry.get("dims")):
            raise TritonError(f"{where}: the vLLM backend takes {entry['name']} as {known}")
    path = version / FILE
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TritonError(f"{path} cannot be read as JSON: {error}") from error
    notes = check_arguments(arguments, str(path))
    kinds = {group.get("kind", "KIND_AUTO") for group in config.get("instance_group", [])}
    gpus = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
    if gpus > 1 and kinds != {"KIND_MODEL"}:
        raise TritonError(
            f"{where}: a model over {gpus} GPUs needs instance_group kind KIND_MODEL, so that vLLM "
            "chooses the devices"
        )
    return notes


def check_arguments(arguments: Any, where: str) -> list[str]:
    """Check what goes to ``AsyncEngineArgs``. Returns notes; raises TritonError."""
    if not isinstance(arguments, dict) or not isinstance(arguments.get("model"), str):
        raise TritonError(f'{where} needs a "model": a hub id, or a folder in the image')
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_model_len"):
        value = arguments.get(name, 1)
        if type(value) is not int or value < 1:
            raise TritonError(f"{where}: {name} has to be a positive integer, not {value!r}")
    share = arguments.get("gpu_memory_utilization", 0.9)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise TritonError(
            f"{where}: gpu_memory_utilization has to be above 0 and at most 1, not {share!r}"
        )
    known = engine_arguments()
    if known is None:
        return ["vllm is not installed here, so the names of its engine arguments are not checked"]
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TritonError(f"{where}: vLLM has no engine argument {name!r}{hint}")
    return []


def engine_arguments() -> frozenset[str] | None:
    """Fields of the installed vLLM's ``AsyncEngineArgs``, read without importing it."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).with_name("engine") / "arg_utils.py"
    if not source.is_file():
        return None
    return frozenset(
        field.target.id
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs")
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not field.target.id.startswith("_")
    )
