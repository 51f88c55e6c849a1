"""The config.pbtxt of each kind of model (Triton's model configuration, model_config.proto)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.triton.errors import TritonError
from deploy.triton.schema import Config
from deploy.triton.tensors import Signature, Tensor, tensor_entry

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Queueing:
    """How requests wait, and what is run together.

    Attributes:
        max_batch_size: most rows of one run; 0: Triton adds no batch dimension; None: as the
            graph allows.
        preferred: sizes at which a batch is run at once.
        delay_us: microseconds that a smaller batch waits for more.
        priorities: levels; 1 is served first. 0: none.
        default_priority: of a request that names none; 0: the middle one.
        max_queue_size: requests that may wait, per priority; 0: no bound.
        timeout_ms: a request that waited longer is refused; 0: never.
    """

    max_batch_size: int | None = None
    preferred: tuple[int, ...] = ()
    delay_us: int = 500
    priorities: int = 0
    default_priority: int = 0
    max_queue_size: int = 128
    timeout_ms: int = 30_000

    def check(self) -> None:
        """Raises TritonError for numbers that Triton would refuse or that make no sense."""
        levels = self.priorities
        if self.default_priority and not 1 <= self.default_priority <= levels:
            raise TritonError(
                f"the default priority {self.default_priority} is not one of the {levels} levels: "
                "set --default-priority between 1 and --priorities"
            )
        limit = self.max_batch_size
        if self.preferred and limit is not None and max(self.preferred) > limit:
            raise TritonError(
                f"the preferred size {max(self.preferred)} is above the largest batch, {limit}: "
                "raise --max-batch-size or lower --preferred"
            )

    def batching(self, max_batch_size: int) -> Config:
        """``dynamic_batching``, which holds the queue's policy as well."""
        policy: Config = {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": self.timeout_ms * 1000,
            "allow_timeout_override": True,
            "max_queue_size": self.max_queue_size,
        }
        made: Config = {"default_queue_policy": policy}
        if max_batch_size:
            sizes = [size for size in self.preferred if size <= max_batch_size]
            made["preferred_batch_size"] = sizes or [max_batch_size]
            made["max_queue_delay_microseconds"] = self.delay_us
        if self.priorities:
            made["priority_levels"] = self.priorities
            made["default_priority_level"] = self.default_priority or (self.priorities + 1) // 2
        return made


@dataclass(frozen=True, slots=True)
class Running:
    """Where and how often a model is loaded.

    Attributes:
        instances: copies that run side by side, each with its own memory.
        threads: of one run on the CPU; 0: every core.
    """

    instances: int = 1
    device: Device = "cpu"
    threads: int = 0

    def group(self) -> list[Config]:
        """``instance_group``."""
        return [{"kind": f"KIND_{self.device.upper()}", "count": self.instances}]


def model_config(
    name: str,
    backend: str,
    signature: Signature,
    max_batch_size: int,
    *,
    running: Running,
    queueing: Queueing | None = None,
    parameters: Mapping[str, str | int] | None = None,
    decoupled: bool = False,
) -> Config:
    """A model of one backend; without ``queueing``, requests run one after the other."""
    batched = max_batch_size > 0
    config: Config = {
        "name": name,
        "backend": backend,
        "max_batch_size": max_batch_size,
        "input": [tensor_entry(tensor, batched=batched) for tensor in signature.inputs],
        "output": [tensor_entry(tensor, batched=batched) for tensor in signature.outputs],
        "instance_group": running.group(),
        "version_policy": {"latest": {"num_versions": 1}},
    }
    if queueing is not None:
        config["dynamic_batching"] = queueing.batching(max_batch_size)
    if parameters:
        config["parameters"] = {k: {"string_value": str(v)} for k, v in parameters.items()}
    if decoupled:
        config["model_transaction_policy"] = {"decoupled": True}
    return config


def ensemble_config(
    name: str,
    signature: Signature,
    max_batch_size: int,
    steps: Sequence[Config],
    renamed: Mapping[str, str] | None = None,
) -> Config:
    """Models wired by name: a step's output goes to every input of the same name.

    Args:
        steps: configs of the models, in order.
        renamed: the ensemble's name of a tensor, by the models' name of it.
    """
    other = dict(renamed or {})
    wired = []
    for step in steps:
        maps = {
            f"{kind}_map": {
                entry["name"]: other.get(entry["name"], entry["name"])
                for entry in step.get(kind, [])
            }
            for kind in ("input", "output")
        }
        wired.append({"model_name": step["name"], "model_version": -1} | maps)
    batched = max_batch_size > 0
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": max_batch_size,
        "input": [tensor_entry(tensor, batched=batched) for tensor in signature.inputs],
        "output": [tensor_entry(tensor, batched=batched) for tensor in signature.outputs],
        "ensemble_scheduling": {"step": wired},
    }


def text(name: str) -> Tensor:
    """One text per request."""
    return Tensor(name, "TYPE_STRING", (1,))
