"""A spec as Cloud Run's two languages have it: the v2 API's message, and Knative's YAML.

The fields are those of https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services
and https://cloud.google.com/run/docs/reference/yaml/v1.
"""

from __future__ import annotations

from typing import Any

from deploy.cloudrun.spec import STARTUP_PERIOD_S, Spec

LABELS = {"managed-by": "llm-gateway"}
_INGRESS = {
    "internal": ("INGRESS_TRAFFIC_INTERNAL_ONLY", "internal"),
    "load-balancer": (
        "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
        "internal-and-cloud-load-balancing",
    ),
    "all": ("INGRESS_TRAFFIC_ALL", "all"),
}
CONTAINER, VOLUME = "gateway", "models"


def probes(spec: Spec) -> dict[str, dict[str, Any]]:
    """The three probes, whose fields have the same names in both languages."""

    def probe(path: str, period: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": spec.port},
            "periodSeconds": period,
            "timeoutSeconds": min(period, 4),
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe(
            "/health/startup", STARTUP_PERIOD_S, spec.startup_s // STARTUP_PERIOD_S
        ),
        # An engine at work is alive: only a process that does not answer at all is started again.
        "livenessProbe": probe("/health/live", 30, 4),
        "readinessProbe": probe("/health/ready", 10, 2),
    }


def limits(spec: Spec) -> dict[str, str]:
    gpu = {"nvidia.com/gpu": "1"} if spec.gpu else {}
    return {"cpu": str(spec.cpu), "memory": spec.memory, **gpu}


def v2_service(spec: Spec) -> dict[str, Any]:
    """``google.cloud.run.v2.Service`` as JSON, without its name, which requests have elsewhere."""
    env: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in spec.full_environment().items()
    ]
    for name, secret in spec.secrets.items():
        reference = {"secret": secret.secret, "version": secret.version}
        env.append({"name": name, "valueSource": {"secretKeyRef": reference}})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "env": env,
        "ports": [{"name": "http1", "containerPort": spec.port}],
        "resources": {
            "limits": limits(spec),
            "cpuIdle": spec.billing == "request",
            "startupCpuBoost": spec.cpu_boost,
        },
        **probes(spec),
    }
    template: dict[str, Any] = {
        "labels": LABELS,
        "scaling": {"maxInstanceCount": spec.scaling.max},
        "timeout": f"{spec.timeout_s}s",
        "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
        "maxInstanceRequestConcurrency": spec.requests_per_instance(),
        "sessionAffinity": spec.session_affinity,
        "containers": [container],
    }
    if spec.service_account:
        template["serviceAccount"] = spec.service_account
    if spec.gpu:
        template["nodeSelector"] = {"accelerator": spec.gpu}
        template["gpuZonalRedundancyDisabled"] = True
    if spec.models:
        container["volumeMounts"] = [{"name": VOLUME, "mountPath": spec.models.path}]
        bucket = {"bucket": spec.models.bucket, "readOnly": True}
        template["volumes"] = [{"name": VOLUME, "gcs": bucket}]
    return {
        "labels": LABELS,
        "ingress": _INGRESS[spec.access.ingress][0],
        "launchStage": spec.launch_stage,
        "invokerIamDisabled": False,
        "scaling": {"minInstanceCount": spec.scaling.min},
        "traffic": [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}],
        "template": template,
    }


def v1_service(spec: Spec) -> dict[str, Any]:
    """The Knative service, for ``gcloud run services replace``."""
    env: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in spec.full_environment().items()
    ]
    for name, secret in spec.secrets.items():
        reference = {"name": secret.secret, "key": secret.version}
        env.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "ports": [{"name": "http1", "containerPort": spec.port}],
        "env": env,
        "resources": {"limits": limits(spec)},
        **probes(spec),
    }
    inner: dict[str, Any] = {
        "containerConcurrency": spec.requests_per_instance(),
        "timeoutSeconds": spec.timeout_s,
        "containers": [container],
    }
    annotations = {
        "autoscaling.knative.dev/maxScale": str(spec.scaling.max),
        "run.googleapis.com/cpu-throttling": _flag(spec.billing == "request"),
        "run.googleapis.com/startup-cpu-boost": _flag(spec.cpu_boost),
        "run.googleapis.com/execution-environment": "gen2",
        "run.googleapis.com/sessionAffinity": _flag(spec.session_affinity),
    }
    if spec.service_account:
        inner["serviceAccountName"] = spec.service_account
    if spec.gpu:
        inner["nodeSelector"] = {"run.googleapis.com/accelerator": spec.gpu}
        annotations["run.googleapis.com/gpu-zonal-redundancy-disabled"] = "true"
    if spec.models:
        container["volumeMounts"] = [{"name": VOLUME, "mountPath": spec.models.path}]
        bucket = {
            "driver": "gcsfuse.run.googleapis.com",
            "readOnly": True,
            "volumeAttributes": {"bucketName": spec.models.bucket},
        }
        inner["volumes"] = [{"name": VOLUME, "csi": bucket}]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": spec.name,
            "namespace": spec.project,
            "labels": {**LABELS, "cloud.googleapis.com/location": spec.region},
            "annotations": {
                "run.googleapis.com/ingress": _INGRESS[spec.access.ingress][1],
                "run.googleapis.com/invoker-iam-disabled": "false",
                "run.googleapis.com/minScale": str(spec.scaling.min),
                "run.googleapis.com/launch-stage": spec.launch_stage,
            },
        },
        "spec": {
            "template": {
                "metadata": {"labels": dict(LABELS), "annotations": annotations},
                "spec": inner,
            },
            "traffic": [{"latestRevision": True, "percent": 100}],
        },
    }


def as_yaml(spec: Spec) -> str:
    """The Knative service as text."""
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(v1_service(spec), sort_keys=False, allow_unicode=True))


def _flag(value: bool) -> str:
    return "true" if value else "false"
