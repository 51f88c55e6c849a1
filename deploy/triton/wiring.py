"""The rules of an ensemble: who makes each tensor, who takes it, and that the two agree.

Triton finds some of these faults only when the ensemble loads, and some of them, such as a
cycle, with a message that names no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.triton.errors import TritonError
from deploy.triton.schema import Config
from deploy.triton.tensors import Tensor, fits, signature_of


@dataclass(slots=True)
class _Wires:
    """What is known of the tensors of one ensemble.

    Attributes:
        makers: who makes a tensor, and as what.
        takers: who takes a tensor, and as what.
        needs: the tensors that each step waits for.
    """

    ensemble: str
    makers: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    takers: list[tuple[str, str, Tensor]] = field(default_factory=list)
    needs: dict[str, set[str]] = field(default_factory=dict)

    def fault(self, message: str) -> TritonError:
        return TritonError(f"the ensemble {self.ensemble} {message}")

    def made(self, tensor: str, maker: str, what: Tensor) -> None:
        if tensor in self.makers:
            raise self.fault(
                f"makes the tensor {tensor} twice, by {self.makers[tensor][0]} and by {maker}: "
                "map one of them to another name"
            )
        self.makers[tensor] = (maker, what)


def check_ensemble(config: Config, configs: Mapping[str, Config]) -> None:
    """Raises TritonError for the first rule that ``config`` breaks.

    Args:
        configs: of every model in the repository.
    """
    wires = _Wires(config["name"])
    for setting in ("dynamic_batching", "instance_group"):
        if config.get(setting):
            raise wires.fault(f"has a {setting}: set it on the models that it is made of")
    steps = config.get("ensemble_scheduling", {}).get("step", [])
    if not steps:
        raise wires.fault("has no steps: add a step for every model")
    own = signature_of(config, reshaped=False)
    for tensor in own.inputs:
        wires.made(tensor.name, "the request", tensor)
    for number, step in enumerate(steps):
        _read_step(wires, step, f"step {number + 1} ({step.get('model_name')})", configs, config)
    wires.takers += [("the response", tensor.name, tensor) for tensor in own.outputs]
    _check_tensors(wires)
    _check_order(wires)
    taken = {tensor for _, tensor, _ in wires.takers}
    for tensor in own.inputs:
        if tensor.name not in taken:
            raise wires.fault(f"takes {tensor.name} and no step uses it: remove that input")


def _read_step(
    wires: _Wires, step: Config, label: str, configs: Mapping[str, Config], ensemble: Config
) -> None:
    model = configs.get(step.get("model_name", ""))
    if model is None:
        known = ", ".join(sorted(configs.keys() - {wires.ensemble}))
        raise wires.fault(f"has {label}, a model that is not in the repository ({known})")
    if model["name"] == wires.ensemble:
        raise wires.fault(f"has itself as {label}")
    if ensemble.get("max_batch_size", 0) > model.get("max_batch_size", 0):
        raise wires.fault(
            f"takes batches of {ensemble['max_batch_size']} and {label} of at most "
            f"{model.get('max_batch_size', 0)}: lower the ensemble's max_batch_size"
        )
    signature = signature_of(model, reshaped=False)
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        mapped: dict[str, str] = step.get(f"{kind}_map", {})
        known_names = {tensor.name: tensor for tensor in tensors}
        if strange := sorted(mapped.keys() - known_names.keys()):
            raise wires.fault(f"maps {strange[0]} in {label}, which has no such {kind}")
        if kind == "input":
            missing = [t.name for t in tensors if t.name not in mapped and not t.optional]
            if missing:
                raise wires.fault(f"does not feed {missing[0]} of {label}: add it to input_map")
            wires.needs[label] = set(mapped.values())
            wires.takers += [(label, name, known_names[key]) for key, name in mapped.items()]
        else:
            for key, name in mapped.items():
                wires.made(name, label, known_names[key])


def _check_tensors(wires: _Wires) -> None:
    """Every tensor that is taken is made, with the same type and a shape that fits."""
    for taker, name, wanted in wires.takers:
        if name not in wires.makers:
            raise wires.fault(f"gives {name} to {taker}, and nothing makes it")
        maker, given = wires.makers[name]
        if given.kind != wanted.kind:
            raise wires.fault(
                f"passes {name} from {maker} as {given.kind} to {taker}, which takes {wanted.kind}"
            )
        if not fits(given.shape, wanted.shape):
            raise wires.fault(
                f"passes {name} from {maker} as {list(given.shape)} to {taker}, which takes "
                f"{list(wanted.shape)}"
            )
        if given.optional and not wanted.optional:
            raise wires.fault(f"may be called without {name}, and {taker} cannot do without it")


def _check_order(wires: _Wires) -> None:
    """Every step can run after what it waits for: there is no cycle."""
    ready = {name for name, (maker, _) in wires.makers.items() if maker == "the request"}
    waiting = dict(wires.needs)
    while waiting:
        able = [label for label, needs in waiting.items() if needs <= ready]
        if not able:
            raise wires.fault(f"has a cycle: {', '.join(waiting)} wait for each other")
        for label in able:
            del waiting[label]
            ready |= {name for name, (maker, _) in wires.makers.items() if maker == label}
