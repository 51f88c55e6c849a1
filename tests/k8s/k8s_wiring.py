"""What is wrong between objects: selectors, ports, and names of what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8s_manifests import Manifests, Object, Workload


def selected(manifests: Manifests, labels: dict[str, str], namespace: str) -> list[Workload]:
    """Which pods these labels select; none select nothing here."""
    return [
        workload
        for workload in manifests.workloads()
        if labels and workload.namespace == namespace and workload.has_labels(labels)
    ]


def selectors(manifests: Manifests) -> Iterator[str]:
    """Whatever selects pods selects the ones it is for, and no others."""
    for item in manifests.objects:
        meta, spec = item["metadata"], item.get("spec", {})
        name, namespace = f"{item['kind']} {meta['name']}", meta.get("namespace", "")
        match item["kind"]:
            case "Deployment":
                labels = spec["selector"]["matchLabels"]
                pods = [w.name for w in selected(manifests, labels, namespace)]
                if pods != [meta["name"]]:
                    yield f"{name} selects pods of {pods}"
                yield from spread_faults(item)
            case "Service" | "PodDisruptionBudget":
                chosen = spec["selector"]
                labels = chosen.get("matchLabels", {}) if "Pod" in item["kind"] else chosen
                pods = [w.name for w in selected(manifests, labels, namespace)]
                if pods != [meta["name"]]:
                    yield f"{name} selects pods of {pods}"
            case "NetworkPolicy":
                labels = spec["podSelector"].get("matchLabels", {})
                # The endpoint picker comes from its own project.
                own = labels and "inferencepool" not in labels
                if own and not selected(manifests, labels, namespace):
                    yield f"{name} selects no pods"
            case "InferencePool" | "PodMonitoring":
                labels = spec["selector"]["matchLabels"]
                pods_found = selected(manifests, labels, namespace)
                if not any(workload.serves for workload in pods_found):
                    yield f"{name} selects no pods"


def spread_faults(deployment: Object) -> Iterator[str]:
    template = deployment["spec"]["template"]
    for constraint in template["spec"].get("topologySpreadConstraints", []):
        wanted = constraint["labelSelector"]["matchLabels"]
        if not wanted.items() <= template["metadata"]["labels"].items():
            yield f"{deployment['metadata']['name']} is spread by labels that its pods do not have"


def ports(manifests: Manifests) -> Iterator[str]:
    """Every port that is named or numbered is one that the pods behind it have."""
    for service in manifests.of("Service"):
        for port in service["spec"]["ports"]:
            for workload in selected(manifests, service["spec"]["selector"], namespace_of(service)):
                yield from unknown_port(service, workload, port.get("targetPort", port["port"]))
                headless = service["spec"].get("clusterIP") == "None"
                if headless and workload.ports().get(port["name"]) != port["port"]:
                    name = service["metadata"]["name"]
                    yield f"{name} is headless, and {port['port']} is no port"
    for monitor in manifests.of("ServiceMonitor"):
        found = [
            service
            for service in manifests.of("Service")
            if monitor["spec"]["selector"]["matchLabels"].items()
            <= service["metadata"]["labels"].items()
        ]
        if not found:
            yield f"ServiceMonitor {monitor['metadata']['name']} selects no Service"
        for endpoint in monitor["spec"]["endpoints"]:
            for service in found:
                if endpoint["port"] not in {port["name"] for port in service["spec"]["ports"]}:
                    yield f"ServiceMonitor: {service['metadata']['name']} has no {endpoint['port']}"
    for item in [*manifests.of("PodMonitoring"), *manifests.of("InferencePool")]:
        asked = item["spec"].get("endpoints") or item["spec"]["targetPorts"]
        for workload in selected(
            manifests, item["spec"]["selector"]["matchLabels"], namespace_of(item)
        ):
            for port in asked if workload.serves else []:
                yield from unknown_port(item, workload, port.get("port") or port["number"])


def unknown_port(item: Object, workload: Workload, port: Any) -> Iterator[str]:
    if port not in workload.ports() and port not in workload.ports().values():
        yield f"{item['kind']} {item['metadata']['name']}: {workload.name} has no port {port}"


def namespace_of(item: Object) -> str:
    return str(item["metadata"]["namespace"])


def references(manifests: Manifests) -> Iterator[str]:
    """Every object that another one names is there, and everything is in its namespace."""
    for workload in manifests.workloads():
        named = [("ServiceAccount", workload.pod["serviceAccountName"])]
        for volume in workload.pod.get("volumes", []):
            if "configMap" in volume:
                named.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                named.append(("PersistentVolumeClaim", claim))
        for kind, name in named:
            if manifests.named(kind, name) is None:
                yield f"{workload.name}: there is no {kind} {name}"
        account = workload.name.removesuffix("-worker")
        if workload.pod["serviceAccountName"] != account:
            yield f"{workload.name} runs as {workload.pod['serviceAccountName']}"
    for binding in manifests.of("RoleBinding"):
        if manifests.named("Role", binding["roleRef"]["name"]) is None:
            yield f"there is no Role {binding['roleRef']['name']}"
    for route in manifests.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if manifests.named(backend.get("kind", "Service"), backend["name"]) is None:
                    yield f"HTTPRoute: there is no {backend.get('kind')} {backend['name']}"
    namespaces = {item["metadata"]["name"] for item in manifests.of("Namespace")}
    for item in manifests.objects:
        if item["kind"] != "Namespace":
            there = item["metadata"].get("namespace")
            # The adapter's rules belong to whoever runs the adapter.
            if there not in namespaces and item["metadata"]["name"] != "llm-gateway-adapter-rules":
                yield f"{item['kind']} {item['metadata']['name']} is in no namespace of these"


def disruptions(manifests: Manifests) -> Iterator[str]:
    """A budget never forbids every eviction, and holds up no node for a broken pod."""
    for budget in manifests.of("PodDisruptionBudget"):
        spec, name = budget["spec"], budget["metadata"]["name"]
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"PodDisruptionBudget {name}: a broken pod holds up its node"
        least = least_replicas(manifests, name)
        if "minAvailable" in spec and spec["minAvailable"] >= least:
            kept = spec["minAvailable"]
            yield f"PodDisruptionBudget {name} keeps {kept} of at least {least} pods"
        if "maxUnavailable" in spec and spec["maxUnavailable"] in (0, "0%"):
            yield f"PodDisruptionBudget {name} allows no eviction"


def least_replicas(manifests: Manifests, name: str) -> int:
    for scaler in [*manifests.of("HorizontalPodAutoscaler"), *manifests.of("ScaledObject")]:
        spec = scaler["spec"]
        if spec["scaleTargetRef"]["name"] == name:
            return int(spec.get("minReplicas", spec.get("minReplicaCount", 0)))
    return 1
