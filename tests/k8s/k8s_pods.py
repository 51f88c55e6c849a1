"""What is wrong with pods: their rights, images, resources, probes, ends, and what they write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from k8s_manifests import Manifests, Workload
from k8s_settings import CONFIG_DIRS, values_of

from gateway import __version__
from gateway.http.edge import OPEN_PATHS
from gateway.server import FLUSH_S

# What docs/operations.md asks for beyond DRAIN_TIMEOUT_S.
LEDGER_S = 10
# What a Spot node of GKE leaves to a pod.
SPOT_NOTICE_S = 15
PROBES = {
    "startupProbe": "/health/startup",
    "livenessProbe": "/health/live",
    "readinessProbe": "/health/ready",
}
SPOT = "cloud.google.com/gke-spot"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1}
# Of the restricted Pod Security Standard.
VOLUME_KINDS = {"configMap", "csi", "downwardAPI", "emptyDir", "persistentVolumeClaim", "secret"}


def size(quantity: str) -> int:
    """Bytes of a quantity such as 4Gi."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|Ti|)", quantity)
    assert match is not None, f"{quantity} is no size"
    return int(match[1]) * _UNITS[match[2]]


def pod_security(manifests: Manifests) -> Iterator[str]:
    """The restricted Pod Security Standard, and that the namespace asks for it."""
    for workload in manifests.workloads():
        pod, own = workload.pod, workload.container.get("securityContext", {})
        both = {**pod.get("securityContext", {}), **own}
        name = workload.name
        if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
            yield f"{name} may run as root"
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{name} may escalate privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            yield f"{name} keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name} may write to its root file system"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield f"{name} has {field}"
        for volume in pod.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUME_KINDS:
                yield f"{name} mounts {volume['name']}, which restricted pods may not"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} gets a token of the API server"
        if pod.get("enableServiceLinks") is not False:
            yield f"{name} gets a variable for every Service, such as VLLM_PORT"
    for namespace in manifests.of("Namespace"):
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"namespace {namespace['metadata']['name']} does not enforce restricted pods"


def images(manifests: Manifests) -> Iterator[str]:
    """The project's own, by version; the GPU's where there is a GPU."""
    for workload in manifests.workloads():
        name, _, tag = workload.container["image"].partition(":")
        if tag in ("", "latest"):
            yield f"{workload.name}: image {name} has no version"
        elif tag != __version__:
            yield f"{workload.name}: image {name}:{tag} is not of version {__version__}"
        wanted = "llm-gateway-gpu" if workload.gpus else "llm-gateway-cpu"
        if name != wanted:
            yield f"{workload.name}: image {name} where {wanted} is needed"


def resources(manifests: Manifests) -> Iterator[str]:
    """Requests for everything, memory bounded, shared memory within the bound."""
    for workload in manifests.workloads():
        asked = workload.container.get("resources", {})
        requests, limits = asked.get("requests", {}), asked.get("limits", {})
        for kind in ("cpu", "memory", "ephemeral-storage"):
            if kind not in requests:
                yield f"{workload.name} requests no {kind}"
        for kind in ("memory", "ephemeral-storage"):
            if kind not in limits:
                yield f"{workload.name} has no limit of {kind}"
            elif kind in requests and size(requests[kind]) > size(limits[kind]):
                yield f"{workload.name} requests more {kind} than its limit"
        in_memory, on_disk = 0, 0
        for volume in workload.pod.get("volumes", []):
            if (empty := volume.get("emptyDir")) is not None:
                if "sizeLimit" not in empty:
                    yield f"{workload.name}: volume {volume['name']} has no bound"
                elif empty.get("medium") == "Memory":
                    in_memory += size(empty["sizeLimit"])
                else:
                    on_disk += size(empty["sizeLimit"])
        if "memory" in limits and in_memory * 2 > size(limits["memory"]):
            yield f"{workload.name}: volumes in memory leave less than half of its limit"
        if "ephemeral-storage" in limits and on_disk > size(limits["ephemeral-storage"]):
            yield f"{workload.name}: its volumes are larger than its limit of ephemeral-storage"


def gpus(manifests: Manifests) -> Iterator[str]:
    """vLLM exactly where GPUs are, on nodes that are chosen, tolerated, and not waited for."""
    for workload in manifests.workloads():
        if workload.serves:
            engine = values_of(manifests, workload).get("ENGINE")
            if (engine == "vllm") != bool(workload.gpus):
                yield f"{workload.name} has {workload.gpus} GPUs and ENGINE={engine}"
        if not workload.gpus:
            continue
        tolerated = {item.get("key") for item in workload.pod.get("tolerations", [])}
        if "nvidia.com/gpu" not in tolerated:
            yield f"{workload.name} has a GPU and does not tolerate nvidia.com/gpu"
        if "nodeAffinity" not in workload.pod.get("affinity", {}):
            yield f"{workload.name} takes any GPU"
        if not any(v.get("emptyDir", {}).get("medium") for v in workload.pod["volumes"]):
            yield f"{workload.name} has no shared memory of its own"
    for deployment in manifests.of("Deployment"):
        workload = next(
            w for w in manifests.workloads() if w.name == deployment["metadata"]["name"]
        )
        surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        if workload.gpus and surge != 0:
            yield f"{workload.name}: a rollout waits for {surge} spare GPU nodes"
        if not workload.gpus and deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"]:
            yield f"{workload.name}: a rollout takes serving pods away before others are there"


def ends(manifests: Manifests) -> Iterator[str]:
    """The grace period holds preStop, the drain, and what comes after it."""
    drains = []
    for workload in manifests.workloads():
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        pre_stop = pre_stop_s(workload)
        if pre_stop < 2:
            yield f"{workload.name}: load balancers do not learn in time that it goes"
        if not workload.serves:
            if pre_stop < max(drains):
                yield f"{workload.name} goes while its leader drains"
            continue
        drain = float(values_of(manifests, workload)["DRAIN_TIMEOUT_S"])
        drains.append(drain)
        if grace <= (needed := pre_stop + drain + FLUSH_S + LEDGER_S):
            yield f"{workload.name}: a grace period of {grace} s where its end takes {needed:g} s"
        if is_spot(workload) and pre_stop + drain + FLUSH_S > SPOT_NOTICE_S:
            yield f"{workload.name}: its drain outlasts the notice of a Spot node"


def is_spot(workload: Workload) -> bool:
    return SPOT in workload.pod.get("nodeSelector", {})


def pre_stop_s(workload: Workload) -> float:
    action: dict[str, Any] = workload.container.get("lifecycle", {}).get("preStop", {})
    match action.get("exec", {}).get("command"):
        case ["sleep", seconds]:
            return float(seconds)
    return 0.0


def probes(manifests: Manifests) -> Iterator[str]:
    """Each of the three health routes for its probe, on a port that is there."""
    for workload in manifests.workloads():
        if not workload.serves:
            continue
        for kind, path in PROBES.items():
            asked = workload.container.get(kind, {}).get("httpGet", {})
            told = f"{workload.name}: {kind} asks {asked.get('path')}"
            if asked.get("path") not in OPEN_PATHS:
                yield f"{told}, which needs a key or is unknown"
            elif asked["path"] != path:
                yield f"{told} and not {path}"
            port = workload.ports().get(asked.get("port"))
            if str(port) != values_of(manifests, workload).get("PORT"):
                yield f"{workload.name}: {kind} asks port {asked.get('port')}, which is not PORT"
        startup = workload.container.get("startupProbe", {})
        loading = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
        if loading < (1800 if workload.gpus else 120):
            yield f"{workload.name}: a model that loads for {loading} s is killed"
        deployment = manifests.named("Deployment", workload.name)
        if deployment and deployment["spec"].get("progressDeadlineSeconds", 600) <= loading:
            yield f"{workload.name}: a rollout is given up while its model may still load"


def writes(manifests: Manifests) -> Iterator[str]:
    """Whatever is written lies on a volume, and every volume is used."""
    for workload in manifests.workloads():
        mounts = workload.container.get("volumeMounts", [])
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        if missing := {mount["name"] for mount in mounts} ^ volumes:
            yield f"{workload.name}: {sorted(missing)} is a mount without a volume or the reverse"
        writable = [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]
        values = values_of(manifests, workload)
        for key in CONFIG_DIRS:
            path = values.get(key)
            if path is None and (key == "HOME" or workload.serves):
                yield f"{workload.name}: {key} is not set"
            elif path and not any(f"{path}/".startswith(f"{mount}/") for mount in writable):
                yield f"{workload.name}: {key}={path} cannot be written"
