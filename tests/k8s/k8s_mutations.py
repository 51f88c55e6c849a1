"""One way each to break a manifest, and what is to be told about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k8s_manifests import Manifests


@dataclass(frozen=True)
class Mutation:
    """``break_it`` is applied to a copy of ``overlay``; ``rule`` has to say ``told``."""

    overlay: str
    rule: str
    told: str
    break_it: Callable[[Manifests], Any]


MUTATIONS: list[Mutation] = []


def mutation(
    overlay: str, rule: str, told: str
) -> Callable[[Callable[[Manifests], Any]], Callable[[Manifests], Any]]:
    def keep(break_it: Callable[[Manifests], Any]) -> Callable[[Manifests], Any]:
        MUTATIONS.append(Mutation(overlay, rule, told, break_it))
        return break_it

    return keep


TWO_LAYERS = "gpu-vllm-with-cpu-fallback"
GROUP = "leader-worker-set"


def pod_of(manifests: Manifests, name: str = "llm-gateway") -> Any:
    return manifests.get("Deployment", name)["spec"]["template"]["spec"]


def container_of(manifests: Manifests, name: str = "llm-gateway") -> Any:
    return pod_of(manifests, name)["containers"][0]


def config_of(manifests: Manifests, part: str = "llm-gateway-config-") -> Any:
    configs = manifests.of("ConfigMap")
    return next(c["data"] for c in configs if c["metadata"]["name"].startswith(part))


def replace_in(manifests: Manifests, old: str, new: str) -> None:
    """Change gateway.yaml."""
    routes = config_of(manifests, "llm-gateway-routes")
    assert old in routes["gateway.yaml"]
    routes["gateway.yaml"] = routes["gateway.yaml"].replace(old, new)


# Pods.


@mutation("cpu-onnx", "pod_security", "may run as root")
def root(m: Manifests) -> None:
    pod_of(m)["securityContext"]["runAsUser"] = 0


@mutation("cpu-onnx", "pod_security", "escalate")
def escalation(m: Manifests) -> None:
    del container_of(m)["securityContext"]["allowPrivilegeEscalation"]


@mutation("cpu-onnx", "pod_security", "capabilities")
def capability(m: Manifests) -> None:
    container_of(m)["securityContext"]["capabilities"]["add"] = ["NET_ADMIN"]


@mutation("cpu-onnx", "pod_security", "seccomp")
def seccomp(m: Manifests) -> None:
    pod_of(m)["securityContext"]["seccompProfile"] = {"type": "Unconfined"}


@mutation("cpu-onnx", "pod_security", "restricted pods may not")
def host_path(m: Manifests) -> None:
    pod_of(m)["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


@mutation("cpu-onnx", "pod_security", "does not enforce")
def lax_namespace(m: Manifests) -> None:
    del m.get("Namespace", "llm-gateway")["metadata"]["labels"]


@mutation("gpu-vllm", "pod_security", "VLLM_PORT")
def service_links(m: Manifests) -> None:
    del pod_of(m)["enableServiceLinks"]


@mutation("dev", "images", "has no version")
def latest(m: Manifests) -> None:
    container_of(m)["image"] = "llm-gateway-cpu:latest"


@mutation("dev", "images", "is not of version")
def old_image(m: Manifests) -> None:
    container_of(m)["image"] = "llm-gateway-cpu:0.0.1"


@mutation("gke", "images", "where llm-gateway-gpu is needed")
def image_without_gpu(m: Manifests) -> None:
    container_of(m)["image"] = container_of(m)["image"].replace("gpu", "cpu")


@mutation("cpu-onnx", "resources", "requests no memory")
def no_request(m: Manifests) -> None:
    del container_of(m)["resources"]["requests"]["memory"]


@mutation("cpu-onnx", "resources", "no limit of memory")
def no_limit(m: Manifests) -> None:
    del container_of(m)["resources"]["limits"]["memory"]


@mutation("gpu-vllm", "resources", "less than half")
def shared_memory(m: Manifests) -> None:
    (volume,) = (v for v in pod_of(m)["volumes"] if v["name"] == "shm")
    volume["emptyDir"]["sizeLimit"] = "8Gi"


@mutation("gpu-vllm", "gpus", "has 0 GPUs and ENGINE=vllm")
def gpu_forgotten(m: Manifests) -> None:
    del container_of(m)["resources"]["limits"]["nvidia.com/gpu"]


@mutation("gpu-vllm", "gpus", "does not tolerate")
def gpu_not_tolerated(m: Manifests) -> None:
    pod_of(m)["tolerations"] = []


@mutation("gpu-vllm", "gpus", "spare GPU")
def gpu_surge(m: Manifests) -> None:
    m.get("Deployment", "llm-gateway")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = 1


@mutation("cpu-onnx", "ends", "a grace period of 60 s where its end takes 82 s")
def short_grace(m: Manifests) -> None:
    pod_of(m)["terminationGracePeriodSeconds"] = 60


@mutation("cpu-onnx", "ends", "its end takes")
def long_drain(m: Manifests) -> None:
    config_of(m)["DRAIN_TIMEOUT_S"] = "600"


@mutation(TWO_LAYERS, "ends", "outlasts the notice")
def spot_drain(m: Manifests) -> None:
    config_of(m, "llm-gateway-config-engine")["DRAIN_TIMEOUT_S"] = "14"


@mutation("cpu-onnx", "ends", "do not learn in time")
def no_pre_stop(m: Manifests) -> None:
    del container_of(m)["lifecycle"]


@mutation(GROUP, "ends", "goes while its leader drains")
def worker_goes_first(m: Manifests) -> None:
    group = m.get("LeaderWorkerSet", "llm-gateway")["spec"]["leaderWorkerTemplate"]
    worker = group["workerTemplate"]["spec"]["containers"][0]
    worker["lifecycle"]["preStop"]["exec"]["command"] = ["sleep", "5"]


@mutation("cpu-onnx", "probes", "asks /healthz")
def unknown_probe(m: Manifests) -> None:
    container_of(m)["livenessProbe"]["httpGet"]["path"] = "/healthz"


@mutation("cpu-onnx", "probes", "livenessProbe asks /health/ready")
def probe_that_kills_when_busy(m: Manifests) -> None:
    container_of(m)["livenessProbe"]["httpGet"]["path"] = "/health/ready"


@mutation("cpu-onnx", "probes", "which is not PORT")
def probe_port(m: Manifests) -> None:
    container_of(m)["readinessProbe"]["httpGet"]["port"] = "admin"


@mutation("gke", "probes", "is killed")
def slow_load(m: Manifests) -> None:
    container_of(m)["startupProbe"]["failureThreshold"] = 30


@mutation("gke", "probes", "is given up")
def impatient_rollout(m: Manifests) -> None:
    del m.get("Deployment", "llm-gateway")["spec"]["progressDeadlineSeconds"]


@mutation("cpu-onnx", "writes", "cannot be written")
def read_only_state(m: Manifests) -> None:
    config_of(m)["DATA_DIR"] = "/var/lib/llm-gateway"


@mutation("cpu-onnx", "writes", "a mount without a volume")
def unmounted(m: Manifests) -> None:
    container_of(m)["volumeMounts"].pop()


# Settings.


@mutation("cpu-onnx", "environment", "nobody reads MAX_QEUE")
def misspelt(m: Manifests) -> None:
    config_of(m)["MAX_QEUE"] = "5"


@mutation("cpu-onnx", "environment", "DRAIN_TIMEOUT_S: ")
def out_of_bounds(m: Manifests) -> None:
    config_of(m)["DRAIN_TIMEOUT_S"] = "-1"


@mutation("cpu-onnx", "environment", "the Secret llm-gateway-keys, key keys")
def unknown_secret(m: Manifests) -> None:
    container_of(m)["env"][0]["valueFrom"]["secretKeyRef"]["key"] = "keys"


@mutation("cpu-onnx", "environment", "is not there before it")
def order_of_variables(m: Manifests) -> None:
    container_of(m)["env"].sort(key=lambda item: str(item["name"]))


@mutation("cpu-onnx", "environment", "no API key")
def no_keys(m: Manifests) -> None:
    kept = container_of(m)["env"]
    kept[:] = [item for item in kept if not item["name"].endswith("_KEYS")]


@mutation("cpu-onnx", "environment", "there is no ConfigMap")
def no_config(m: Manifests) -> None:
    container_of(m)["envFrom"][0]["configMapRef"]["name"] = "llm-gateway-config"


@mutation("cpu-onnx", "environment", "PORT=8000 is not its port http")
def other_port(m: Manifests) -> None:
    config_of(m)["PORT"] = "8000"


@mutation(TWO_LAYERS, "environment", "did you mean 'fallbacks'?")
def misspelt_route(m: Manifests) -> None:
    replace_in(m, "fallbacks:", "fallback:")


@mutation(TWO_LAYERS, "environment", "is not mounted")
def routes_not_mounted(m: Manifests) -> None:
    config_of(m)["CONFIG_FILE"] = "/etc/gateway.yaml"


@mutation(TWO_LAYERS, "environment", "there is no Service for")
def other_host(m: Manifests) -> None:
    replace_in(m, "http://llm-gateway-engine.", "http://engine.")


@mutation(TWO_LAYERS, "environment", "not the port that")
def engine_port(m: Manifests) -> None:
    replace_in(m, ":8080/v1", ":8000/v1")


@mutation(TWO_LAYERS, "environment", "not headless")
def engine_behind_one_address(m: Manifests) -> None:
    del m.get("Service", "llm-gateway-engine")["spec"]["clusterIP"]


@mutation(TWO_LAYERS, "environment", "does not serve chat")
def other_model(m: Manifests) -> None:
    config_of(m, "llm-gateway-config-engine")["SERVED_MODEL_NAME"] = "talk"


@mutation(TWO_LAYERS, "environment", "does not know the key")
def other_key(m: Manifests) -> None:
    item = container_of(m, "llm-gateway-engine")["env"]
    (key,) = (entry for entry in item if entry["name"] == "CLIENT_KEYS")
    key["valueFrom"]["secretKeyRef"]["key"] = "client-keys"
