"""Who reaches whom by the NetworkPolicies, as their specification says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s_manifests import Manifests, Object, Workload
from k8s_settings import values_of

DNS = (53, "UDP")
# Nobody may ask it: it hands out the machine's credentials.
METADATA_SERVER = "169.254.169.254"


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside."""

    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str | None = None


def pod(manifests: Manifests, workload: Workload) -> Peer:
    own = manifests.get("Namespace", workload.namespace)["metadata"].get("labels", {})
    return inside(workload.namespace, own, workload.labels, workload.ports())


def inside(
    namespace: str,
    namespace_labels: Mapping[str, str],
    labels: Mapping[str, str],
    ports: Mapping[str, int] | None = None,
) -> Peer:
    # The API server gives every namespace this label.
    every = {"kubernetes.io/metadata.name": namespace, **namespace_labels}
    return Peer(namespace, every, labels, ports or {})


def reaches(
    manifests: Manifests, source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Both sides have to allow it: what leaves the source, and what enters the target."""
    return allows(manifests, "Egress", source, target, target, port, protocol) and allows(
        manifests, "Ingress", target, source, target, port, protocol
    )


def allows(
    manifests: Manifests,
    direction: str,
    own: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    """A pod that no policy selects for a direction is open; else one rule has to fit."""
    policies = [
        policy["spec"]
        for policy in manifests.of("NetworkPolicy")
        if own.address is None
        and policy["metadata"]["namespace"] == own.namespace
        and direction in policy["spec"]["policyTypes"]
        and fits(policy["spec"]["podSelector"], own.labels)
    ]
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    return any(
        (side not in rule or any(is_peer(peer, other, own) for peer in rule[side]))
        and ("ports" not in rule or any(is_port(p, target, port, protocol) for p in rule["ports"]))
        for spec in policies
        for rule in spec.get(direction.lower(), [])
    )


def is_peer(peer: Object, other: Peer, own: Peer) -> bool:
    if (block := peer.get("ipBlock")) is not None:
        if other.address is None:
            return False  # addresses of pods change; a rule by them would hold for nobody
        address = ipaddress.ip_address(other.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(cidr) for cidr in block.get("except", [])
        )
    if other.address is not None:
        return False
    if "namespaceSelector" in peer:
        if not fits(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != own.namespace:
        return False
    return fits(peer.get("podSelector", {}), other.labels)


def is_port(rule: Object, target: Peer, port: int, protocol: str) -> bool:
    asked = rule.get("port")
    number = target.ports.get(asked) if isinstance(asked, str) else asked
    return (
        rule.get("protocol", "TCP") == protocol
        and number in (None, port)
        and (asked is None or number is not None)
    )


def fits(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        there = labels.get(rule["key"])
        holds = {
            "In": there in rule.get("values", []),
            "NotIn": there not in rule.get("values", []),
            "Exists": there is not None,
            "DoesNotExist": there is None,
        }[rule["operator"]]
        if not holds:
            return False
    return True


def reachability(manifests: Manifests) -> Iterator[str]:
    """The connections that are needed, and none beside them."""
    dns = inside("kube-system", {}, {"k8s-app": "kube-dns"})
    monitoring = inside("monitoring", {"llm-gateway/monitoring": "true"}, {})
    google = inside("gmp-system", {}, {})
    clients = inside("apps", {"llm-gateway/clients": "true"}, {})
    strangers = inside("elsewhere", {}, {})
    stores = {"llm-gateway/stores": "true"}
    redis = inside("stores", stores, {"app.kubernetes.io/name": "redis"})
    postgres = inside("stores", stores, {"app.kubernetes.io/name": "postgresql"})
    neighbour = inside("llm-gateway", {}, {"app": "something"})
    picker = inside("llm-gateway", {}, {"inferencepool": "llm-gateway-epp"})
    hub, metadata = Peer(address="18.164.174.55"), Peer(address=METADATA_SERVER)
    internal = Peer(address="10.0.0.9")
    hub_is_open = any("hub" in item["metadata"]["name"] for item in manifests.of("NetworkPolicy"))

    def told(what: str, expected: bool, *way: Any) -> Iterator[str]:
        if reaches(manifests, *way) != expected:
            yield f"{what}: {'not ' if expected else ''}allowed"

    servers = [workload for workload in manifests.workloads() if workload.serves]
    behind = [w for w in servers if w.labels["app.kubernetes.io/component"] == "engine"]
    for workload in manifests.workloads():
        own, name = pod(manifests, workload), workload.name
        front = workload.serves and workload not in behind
        http, admin = 8080, 9090
        yield from told(f"{name} asks DNS", True, own, dns, *DNS)
        yield from told(f"{name} asks DNS over TCP", True, own, dns, 53)
        yield from told(f"clients call {name}", front, clients, own, http)
        yield from told(f"clients manage {name}", False, clients, own, admin)
        yield from told(f"monitoring reads {name}", workload.serves, monitoring, own, admin)
        yield from told(f"monitoring calls {name}", False, monitoring, own, http)
        if manifests.of("PodMonitoring"):
            yield from told(f"Google reads {name}", workload.serves, google, own, admin)
        yield from told(f"strangers call {name}", False, strangers, own, http)
        yield from told(f"strangers read {name}", False, strangers, own, admin)
        yield from told(f"a neighbour calls {name}", False, neighbour, own, http)
        yield from told(f"a neighbour reads {name}", False, neighbour, own, admin)
        yield from told(f"{name} asks the metadata server", False, own, metadata, 80)
        yield from told(f"{name} calls the network of the cluster", False, own, internal, 443)
        yield from told(f"{name} calls strangers", False, own, strangers, 8080)
        loads = hub_is_open and workload.gpus > 0
        yield from told(f"{name} loads weights", loads, own, hub, 443)
        yield from told(f"{name} calls any port outside", False, own, hub, 22)
        values = values_of(manifests, workload)
        yield from told(f"{name} uses Redis", "REDIS_URL" in values, own, redis, 6379)
        stored = "USAGE_DATABASE_URL" in values
        yield from told(f"{name} uses PostgreSQL", stored, own, postgres, 5432)
        if manifests.of("InferencePool"):
            yield from told(f"the picker reads {name}", True, picker, own, admin)
        for other in manifests.workloads():
            if other is workload:
                continue
            there = pod(manifests, other)
            group = "LeaderWorkerSet" in (workload.kind, other.kind)
            relays = front and other in behind
            yield from told(f"{name} calls {other.name}", group or relays, own, there, http)
            yield from told(f"{name} meets {other.name}", group, own, there, 29501)
