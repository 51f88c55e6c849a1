"""A container's environment, checked with the gateway's own settings before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from deploy.container_settings import check_known, settings_from
from gateway.settings import Settings
from gateway.start_stop import FLUSH_S

# Cloud Run kills a container this long after SIGTERM, whatever it is doing.
GRACE_S = 10.0
# After the drain: stopping vLLM's processes.
GPU_STOP_S = 2.0
MOST_CONCURRENT = 1000
# Of Cloud Run, which refuses them.
_RESERVED = re.compile(r"PORT|K_\w+|CLOUD_RUN_\w+|X_GOOGLE_\w+")
_SECRET = re.compile(r"API_KEYS|ADMIN_KEYS|HF_TOKEN|\w+_(TOKEN|PASSWORD|SECRET)|OTEL_\w+_HEADERS")
# With a password within.
_WITH_PASSWORD = re.compile(r"\w+://[^/@\s]+:[^/@\s]+@")
_STAND_IN = {"API_KEYS": "k" * 16, "ADMIN_KEYS": "a" * 16}


def longest_drain_s(*, gpu: bool) -> float:
    """What the grace leaves for running answers, before what ended streams and the connections
    themselves may still take."""
    return GRACE_S - 2 * FLUSH_S - 1.0 - (GPU_STOP_S if gpu else 0.0)


def full_environment(own: Mapping[str, str], *, gpu: bool) -> dict[str, str]:
    """What the container gets: the needed settings, and ``own`` on top."""
    drain = f"{longest_drain_s(gpu=gpu):g}"
    needed = {"HOST": "0.0.0.0", "DRAIN_TIMEOUT_S": drain}  # noqa: S104
    return {**needed, **({"ENGINE": "vllm"} if gpu else {}), **own}


def check_environment(
    own: Mapping[str, str], secrets: Iterable[str], port: int, *, gpu: bool
) -> Settings:
    """The settings that a gateway with this environment has on Cloud Run.

    Args:
        own: the spec's environment.
        secrets: names of variables whose values are in Secret Manager.

    Raises ValueError with a line for every fault.
    """
    secrets = set(secrets)
    for name in sorted({*own, *secrets}):
        _check_name(name)
    if both := sorted(secrets & set(own)):
        raise ValueError(f"{both[0]} is in environment and in secrets: keep one of them")
    for name, value in own.items():
        if _SECRET.fullmatch(name) or _WITH_PASSWORD.search(value):
            raise ValueError(
                f"{name} would be readable for everybody who may look at the service: put it into "
                "Secret Manager and under secrets"
            )
    if not secrets & {"API_KEYS", "ADMIN_KEYS"}:
        raise ValueError(
            "secrets names no API_KEYS, and without a key the gateway does not start: make one "
            "with: openssl rand -hex 32, and put it into Secret Manager"
        )
    if own.get("HOST") not in (None, "0.0.0.0"):  # noqa: S104
        raise ValueError("HOST: Cloud Run reaches the container at 0.0.0.0: remove it")
    given = {
        **full_environment(own, gpu=gpu),
        **{name: value for name, value in _STAND_IN.items() if name in secrets},
        "PORT": str(port),
    }
    settings = settings_from(given)
    longest = longest_drain_s(gpu=gpu)
    if settings.drain_timeout_s > longest:
        raise ValueError(
            f"DRAIN_TIMEOUT_S={settings.drain_timeout_s:g}: Cloud Run kills a container "
            f"{GRACE_S:g} s after SIGTERM: set {longest:g} or less"
        )
    if settings.admin_port is not None:
        raise ValueError("ADMIN_PORT: Cloud Run forwards to a single port: remove it")
    if settings.engine == "vllm" and not gpu:
        raise ValueError("ENGINE=vllm needs a GPU here: add gpu: nvidia-l4, or take ENGINE=onnx")
    return settings


def slots(settings: Settings, *, gpu: bool) -> int:
    """Sequences that the engines of one instance decode together."""
    total = 0
    for config, replicas in settings.served_models():
        on_vllm = gpu and config.kind != "onnx"
        total += replicas * ((on_vllm and config.vllm.max_num_seqs) or config.max_num_seqs)
    return min(total, MOST_CONCURRENT)


def _check_name(name: str) -> None:
    if _RESERVED.fullmatch(name):
        raise ValueError(f"{name}: Cloud Run sets it itself: remove it (the port is port:)")
    if name.startswith("AIP_") or name == "VERTEX_AUTH":
        raise ValueError(f"{name} is for Vertex AI: remove it")
    check_known(name)
