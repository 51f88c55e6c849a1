"""Ways to break what is between objects; see k8s_mutations."""

from __future__ import annotations

from typing import Any

from k8s_manifests import Manifests
from k8s_mutations import GROUP, TWO_LAYERS, config_of, container_of, mutation, pod_of, replace_in


def policy(m: Manifests, name: str = "llm-gateway") -> Any:
    return m.get("NetworkPolicy", name)["spec"]


def scaler(m: Manifests, kind: str = "HorizontalPodAutoscaler", name: str = "llm-gateway") -> Any:
    return m.get(kind, name)["spec"]


def drop(m: Manifests, kind: str, name: str) -> None:
    m.objects.remove(m.get(kind, name))


# Selectors, ports, names.


@mutation("cpu-onnx", "selectors", "Service llm-gateway selects pods of []")
def service_selects_nobody(m: Manifests) -> None:
    m.get("Service", "llm-gateway")["spec"]["selector"]["app.kubernetes.io/name"] = "gateway"


@mutation(TWO_LAYERS, "selectors", "selects pods of ['llm-gateway', 'llm-gateway-engine']")
def service_selects_both(m: Manifests) -> None:
    del m.get("Service", "llm-gateway")["spec"]["selector"]["app.kubernetes.io/component"]


@mutation("cpu-onnx", "selectors", "PodDisruptionBudget llm-gateway selects pods of []")
def budget_selects_nobody(m: Manifests) -> None:
    m.get("PodDisruptionBudget", "llm-gateway")["spec"]["selector"]["matchLabels"] = {"a": "b"}


@mutation("cpu-onnx", "selectors", "is spread by labels")
def spread_of_others(m: Manifests) -> None:
    pod_of(m)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] = {"a": "b"}


@mutation("gke", "selectors", "PodMonitoring llm-gateway selects no pods")
def monitoring_of_nobody(m: Manifests) -> None:
    m.get("PodMonitoring", "llm-gateway")["spec"]["selector"]["matchLabels"] = {"a": "b"}


@mutation("inference-pool", "selectors", "InferencePool llm-gateway selects no pods")
def pool_of_nobody(m: Manifests) -> None:
    m.get("InferencePool", "llm-gateway")["spec"]["selector"]["matchLabels"] = {"a": "b"}


@mutation("cpu-onnx", "ports", "has no port web")
def service_port(m: Manifests) -> None:
    m.get("Service", "llm-gateway")["spec"]["ports"][0]["targetPort"] = "web"


@mutation(TWO_LAYERS, "ports", "is headless, and 80 is no port")
def headless_port(m: Manifests) -> None:
    m.get("Service", "llm-gateway-engine")["spec"]["ports"][0]["port"] = 80


@mutation("cpu-onnx", "ports", "has no metrics")
def scraped_port(m: Manifests) -> None:
    m.get("ServiceMonitor", "llm-gateway")["spec"]["endpoints"][0]["port"] = "metrics"


@mutation("inference-pool", "ports", "has no port 8000")
def pool_port(m: Manifests) -> None:
    m.get("InferencePool", "llm-gateway")["spec"]["targetPorts"][0]["number"] = 8000


@mutation("gpu-vllm", "references", "there is no PersistentVolumeClaim")
def no_claim(m: Manifests) -> None:
    drop(m, "PersistentVolumeClaim", "llm-gateway-models")


@mutation(TWO_LAYERS, "references", "llm-gateway runs as llm-gateway-engine")
def account_of_another(m: Manifests) -> None:
    pod_of(m)["serviceAccountName"] = "llm-gateway-engine"


@mutation("inference-pool", "references", "there is no InferencePool pool")
def route_to_nowhere(m: Manifests) -> None:
    route = m.get("HTTPRoute", "llm-gateway")["spec"]["rules"][0]
    route["backendRefs"][0]["name"] = "pool"


@mutation("cpu-onnx", "references", "is in no namespace of these")
def another_namespace(m: Manifests) -> None:
    m.get("Service", "llm-gateway")["metadata"]["namespace"] = "default"


@mutation("cpu-onnx", "disruptions", "keeps 2 of at least 2 pods")
def strict_budget(m: Manifests) -> None:
    spec = m.get("PodDisruptionBudget", "llm-gateway")["spec"]
    del spec["maxUnavailable"]
    spec["minAvailable"] = 2


@mutation("cpu-onnx", "disruptions", "allows no eviction")
def no_eviction(m: Manifests) -> None:
    m.get("PodDisruptionBudget", "llm-gateway")["spec"]["maxUnavailable"] = 0


# Autoscaling.


@mutation("cpu-onnx", "targets", "there is no Deployment gateway")
def target_is_not_there(m: Manifests) -> None:
    scaler(m)["scaleTargetRef"]["name"] = "gateway"


@mutation(GROUP, "targets", "there is no Deployment llm-gateway")
def target_is_of_another_kind(m: Manifests) -> None:
    scaler(m)["scaleTargetRef"] |= {"apiVersion": "apps/v1", "kind": "Deployment"}


@mutation(TWO_LAYERS, "targets", "llm-gateway-engine has two autoscalers")
def two_scalers(m: Manifests) -> None:
    scaler(m)["scaleTargetRef"]["name"] = "llm-gateway-engine"


@mutation("cpu-onnx", "targets", "which undoes its autoscaler's work")
def fixed_replicas(m: Manifests) -> None:
    m.get("Deployment", "llm-gateway")["spec"]["replicas"] = 3


@mutation("dev", "targets", "neither an autoscaler nor replicas")
def nobody_scales(m: Manifests) -> None:
    del m.get("Deployment", "llm-gateway")["spec"]["replicas"]


@mutation("cpu-onnx", "thresholds", "16 running is all that an engine takes")
def full_before_more(m: Manifests) -> None:
    scaler(m)["metrics"][1]["pods"]["target"]["averageValue"] = "16"


@mutation("cpu-onnx", "thresholds", "1 is full")
def per_cent(m: Manifests) -> None:
    scaler(m)["metrics"][2]["pods"]["target"]["averageValue"] = "80"


@mutation("cpu-onnx", "speed", "waits before it scales up")
def slow_up(m: Manifests) -> None:
    scaler(m)["behavior"]["scaleUp"]["stabilizationWindowSeconds"] = 300


@mutation("cpu-onnx", "speed", "scales down within 60 s")
def fast_down(m: Manifests) -> None:
    scaler(m)["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 60


@mutation("gpu-vllm", "speed", "more than one pod a minute away")
def all_down(m: Manifests) -> None:
    behaviour = scaler(m, "ScaledObject")["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behaviour["scaleDown"]["policies"] = [{"type": "Percent", "value": 100, "periodSeconds": 60}]


@mutation("gpu-vllm", "zero", "nobody holds its requests")
def zero_without_gateway(m: Manifests) -> None:
    scaler(m, "ScaledObject")["minReplicaCount"] = 0


@mutation(TWO_LAYERS, "zero", "nobody holds its requests")
def gateway_that_does_not_wait(m: Manifests) -> None:
    replace_in(m, "  wait_for_target: 60\n", "")


@mutation(TWO_LAYERS, "zero", "which its autoscaler may never see")
def gateway_that_waits_too_briefly(m: Manifests) -> None:
    replace_in(m, "wait_for_target: 60", "wait_for_target: 20")


# The network.


@mutation("cpu-onnx", "reachability", "strangers call llm-gateway: allowed")
def no_default_deny(m: Manifests) -> None:
    for kind in ("default-deny", "llm-gateway"):
        drop(m, "NetworkPolicy", kind)


@mutation("cpu-onnx", "reachability", "llm-gateway asks DNS: not allowed")
def no_dns(m: Manifests) -> None:
    policy(m)["egress"][0]["to"][0]["podSelector"]["matchExpressions"][0]["values"] = ["coredns"]


@mutation("cpu-onnx", "reachability", "asks DNS over TCP: not allowed")
def no_dns_over_tcp(m: Manifests) -> None:
    del policy(m)["egress"][0]["ports"][1]


@mutation("cpu-onnx", "reachability", "strangers call llm-gateway: allowed")
def everybody_may_call(m: Manifests) -> None:
    del policy(m)["ingress"][0]["from"]


@mutation("cpu-onnx", "reachability", "clients manage llm-gateway: allowed")
def clients_on_every_port(m: Manifests) -> None:
    del policy(m)["ingress"][0]["ports"]


@mutation("cpu-onnx", "reachability", "monitoring reads llm-gateway: not allowed")
def renamed_port(m: Manifests) -> None:
    container_of(m)["ports"][1]["name"] = "metrics"


@mutation("gpu-vllm", "reachability", "asks the metadata server: allowed")
def open_egress(m: Manifests) -> None:
    policy(m, "llm-gateway-hub")["egress"] = [{}]


@mutation("gpu-vllm", "reachability", "calls the network of the cluster: allowed")
def hub_with_the_cluster(m: Manifests) -> None:
    policy(m, "llm-gateway-hub")["egress"][0]["to"][0]["ipBlock"]["except"].remove("10.0.0.0/8")


@mutation(TWO_LAYERS, "reachability", "llm-gateway calls llm-gateway-engine: not allowed")
def no_way_to_the_engine(m: Manifests) -> None:
    drop(m, "NetworkPolicy", "llm-gateway-to-engine")


@mutation(TWO_LAYERS, "reachability", "clients call llm-gateway-engine: allowed")
def engine_for_everybody(m: Manifests) -> None:
    policy(m, "llm-gateway-engine")["ingress"][0] = dict(policy(m)["ingress"][0])


@mutation("gke", "reachability", "Google reads llm-gateway: not allowed")
def no_way_for_google(m: Manifests) -> None:
    drop(m, "NetworkPolicy", "llm-gateway-managed-prometheus")


@mutation("redis-postgres", "reachability", "uses Redis: not allowed")
def no_way_to_redis(m: Manifests) -> None:
    del policy(m, "llm-gateway-stores")["egress"][0]


@mutation("redis-postgres", "reachability", "uses PostgreSQL: not allowed")
def wrong_port_of_postgres(m: Manifests) -> None:
    policy(m, "llm-gateway-stores")["egress"][1]["ports"][0]["port"] = 5433


@mutation("inference-pool", "reachability", "the picker reads llm-gateway: not allowed")
def picker_is_shut_in(m: Manifests) -> None:
    drop(m, "NetworkPolicy", "llm-gateway-epp")


@mutation(GROUP, "reachability", "meets llm-gateway-worker: not allowed")
def group_is_shut_in(m: Manifests) -> None:
    drop(m, "NetworkPolicy", "llm-gateway-group")


@mutation("cpu-onnx", "environment", "ADMIN_PORT=None is not its port admin")
def no_admin_port(m: Manifests) -> None:
    del config_of(m)["ADMIN_PORT"]
