"""Execution providers: which are here, in which interpreter, and why one is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.environments import EnvironmentMissing, interpreter, make

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
OWN_ENVIRONMENT = {"openvino": "openvino"}
"""Providers whose build of onnxruntime cannot be installed beside ours."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    Attributes:
        python: the interpreter whose onnxruntime has it.
        missing: why it cannot be used, or empty.
    """

    name: str
    python: Path
    missing: str = ""

    @property
    def full_name(self) -> str:
        """onnxruntime's name."""
        return PROVIDERS[self.name]


def probe(name: str, *, install: bool, say: Callable[[str], None]) -> Provider:
    """Look for a provider of ``PROVIDERS``; ``install`` makes its environment if it needs one."""
    import onnxruntime as ort

    ours = Path(sys.executable)
    if PROVIDERS[name] in ort.get_available_providers():
        return Provider(name, ours)
    environment = OWN_ENVIRONMENT.get(name)
    if environment is None:
        return Provider(
            name,
            ours,
            f"this onnxruntime ({ort.__version__}) is built without {PROVIDERS[name]}: "
            "install onnxruntime-gpu in its place on a machine with an NVIDIA GPU",
        )
    try:
        python = make(environment, say) if install else interpreter(environment)
    except EnvironmentMissing as error:
        return Provider(name, ours, str(error))
    return Provider(name, python)


def here() -> tuple[str, ...]:
    """The providers that can be used without installing anything; always the CPU."""
    return tuple(
        name for name in PROVIDERS if not probe(name, install=False, say=lambda _: None).missing
    )
