"""The environment that a pod's container gets, and what the gateway makes of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
import yaml
from k8s_manifests import Manifests, Workload

from gateway.routing.config import ModelSpec
from gateway.routing.load import ConfigError, routing_config
from gateway.settings import Settings, SettingsError, load_settings

# Paths that are written; the others follow from HOME.
CONFIG_DIRS = ("HOME", "TMPDIR", "HF_HOME", "DATA_DIR", "MODEL_CACHE_DIR")
# Read by others than the settings.
FOR_OTHERS = {"HOME", "TMPDIR", "HF_HOME", "CLIENT_KEYS", "METRICS_KEY", "ENGINE_KEY"}
FOR_OTHERS |= {"VLLM_HOST_IP", "VLLM_NO_USAGE_STATS"}
# The Secrets that docs/deploy/kubernetes.md has made, with values that fit.
SECRETS = {
    "llm-gateway-keys": {
        "client-keys": "client-key-0123456789,client-key-9876543210",
        "metrics-key": "metrics-key-0123456789",
        "engine-key": "engine-key-0123456789",
        "admin-keys": "admin-key-0123456789",
    },
    "llm-gateway-stores": {
        "redis-url": "redis://redis.stores.svc:6379/0",
        "usage-database-url": "postgresql://gateway:secret@postgres.stores.svc/usage",
    },
}
# What LeaderWorkerSet gives, before everything else.
GROUP = {"LWS_LEADER_ADDRESS": "llm-gateway-0.llm-gateway.llm-gateway", "LWS_WORKER_INDEX": "1"}


class Unresolved(Exception):
    """A variable that cannot get its value."""


def values_of(manifests: Manifests, workload: Workload) -> dict[str, str]:
    """The environment, as Kubernetes resolves it. Raises Unresolved."""
    values = dict(GROUP) if workload.kind == "LeaderWorkerSet" else {}
    for source in workload.container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        config = manifests.named("ConfigMap", name)
        if config is None:
            raise Unresolved(f"{workload.name}: there is no ConfigMap {name}")
        values |= config["data"]
    for item in workload.container.get("env", []):
        values[item["name"]] = value_of(item, values, workload)
    return {key: value for key, value in values.items() if key not in GROUP}


def value_of(item: dict[str, object], before: Mapping[str, str], workload: Workload) -> str:
    if "value" in item:
        return re.sub(
            r"\$\((\w+)\)", lambda match: before.get(match[1], match[0]), str(item["value"])
        )
    ((kind, source),) = item["valueFrom"].items()  # type: ignore[attr-defined]
    if kind == "secretKeyRef":
        try:
            return SECRETS[source["name"]][source["key"]]
        except KeyError:
            raise Unresolved(
                f"{workload.name}: {item['name']} comes from the Secret {source['name']}, key "
                f"{source['key']}, which the page has nobody make"
            ) from None
    if kind == "resourceFieldRef":
        side, _, resource = source["resource"].partition(".")
        return str(math.ceil(float(workload.container["resources"][side][resource])))
    assert (kind, source) == ("fieldRef", {"fieldPath": "status.podIP"}), item
    return "10.1.2.3"


def environment(manifests: Manifests) -> Iterator[str]:
    """Every variable has its value, is known to somebody, and the gateway starts with them."""
    known = {name.upper() for name in Settings.model_fields}
    for workload in manifests.workloads():
        try:
            values = values_of(manifests, workload)
        except Unresolved as error:
            yield str(error)
            continue
        for name in sorted(set(values) - known - FOR_OTHERS):
            yield f"{workload.name}: nobody reads {name}"
        if left := [name for name, value in values.items() if "$(" in value]:
            yield f"{workload.name}: {left} refers to a variable that is not there before it"
        if workload.serves:
            yield from start_faults(manifests, workload, values)


def start_faults(
    manifests: Manifests, workload: Workload, values: Mapping[str, str]
) -> Iterator[str]:
    """What `llm-gateway serve` would say, and whether what it routes to is there."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        own = {"DATA_DIR": f"{folder}/state"}
        patch.chdir(folder)
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        if (path := values.get("CONFIG_FILE")) is not None:
            text = mounted_file(manifests, workload, path)
            if text is None:
                yield f"{workload.name}: CONFIG_FILE={path} is not mounted"
                return
            own["CONFIG_FILE"] = f"{folder}/gateway.yaml"
            Path(own["CONFIG_FILE"]).write_text(text)
        for name, value in {**values, **own}.items():
            patch.setenv(name, value)
        try:
            settings = load_settings()
            config = routing_config(settings)
        except (SettingsError, ConfigError) as error:
            yield f"{workload.name}: {error}"
            return
    if settings.port != workload.ports().get("http"):
        yield f"{workload.name}: PORT={settings.port} is not its port http"
    if settings.admin_port != workload.ports().get("admin"):
        yield f"{workload.name}: ADMIN_PORT={settings.admin_port} is not its port admin"
    for model in config.models:
        yield from target_faults(manifests, workload, model)


def target_faults(manifests: Manifests, workload: Workload, model: ModelSpec) -> Iterator[str]:
    """Each server of the model is a Service here, headless where it is found by DNS, and serves
    the model for a key that it knows."""
    for remote in model.remotes:
        for url in remote.discovery.urls:
            parts = urlsplit(url)
            name, namespace, *rest = str(parts.hostname).split(".")
            service = manifests.named("Service", name)
            if service is None or namespace != workload.namespace:
                yield f"{model.names[0]}: there is no Service for {url}"
                continue
            if rest[:1] != ["svc"]:
                yield f"{model.names[0]}: {url} is no name of a Service"
            if remote.discovery.kind == "dns" and service["spec"].get("clusterIP") != "None":
                yield f"{model.names[0]}: {name} is not headless, so only one address is found"
            servers = [
                other
                for other in manifests.workloads()
                if other.has_labels(service["spec"]["selector"])
            ]
            for server in servers:
                values = values_of(manifests, server)
                if str(parts.port) != values["PORT"]:
                    yield f"{model.names[0]}: {url} is not the port that {server.name} binds"
                if remote.model not in values.get("SERVED_MODEL_NAME", "").split(","):
                    yield f"{model.names[0]}: {server.name} does not serve {remote.model}"
                key = remote.api_key.get_secret_value() if remote.api_key else ""
                if key not in values["API_KEYS"].split(","):
                    yield f"{model.names[0]}: {server.name} does not know the key"


def mounted_file(manifests: Manifests, workload: Workload, path: str) -> str | None:
    """The text of a file of a ConfigMap, as the container sees it."""
    for mount in workload.container["volumeMounts"]:
        if path.startswith(mount["mountPath"] + "/"):
            volume = next(v for v in workload.pod["volumes"] if v["name"] == mount["name"])
            config = manifests.named("ConfigMap", volume.get("configMap", {}).get("name", ""))
            if config is not None:
                found = config["data"].get(path.removeprefix(mount["mountPath"] + "/"))
                return None if found is None else str(found)
    return None


def waiting_models(manifests: Manifests) -> dict[str, float]:
    """Seconds that requests wait for a first server, by the Service of these servers."""
    found = {}
    for config in manifests.of("ConfigMap"):
        for model in yaml.safe_load(config["data"].get("gateway.yaml", "models: []"))["models"]:
            for target in model["targets"]:
                if "base_url" in target:
                    host = urlsplit(target["base_url"]).hostname or ""
                    found[host.partition(".")[0]] = float(model.get("wait_for_target", 0))
    return found


def engine_args(manifests: Manifests, workload: Workload) -> dict[str, object]:
    """ENGINE_ARGS as vLLM gets it."""
    return dict(json.loads(values_of(manifests, workload).get("ENGINE_ARGS", "{}")))
