"""The one spec of a deployment: read from YAML, checked whole before anything is sent."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from deploy.spec_file import SpecFileError, as_text, read_document
from deploy.vertex import VertexError
from deploy.vertex.environment import check_environment
from deploy.vertex.spec_parts import EndpointPart, Machine, Part, Probe, Project, Rollout, Scaling

Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,22}[a-z0-9])?$")]
_IMAGE = re.compile(
    r"^(?P<host>[a-z0-9.-]+)/(?P<path>[a-z0-9._/:-]+?)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$"
)
_LABEL = re.compile(r"^[a-z0-9_-]{0,63}$")
# An hour: loading a large model takes long, and Vertex AI's own limit ends it anyway.
STARTUP = Probe.model_validate({"path": "/health/startup", "failures": 360})
HEALTH = Probe.model_validate({"path": "/health/ready"})
RESERVED_LABELS = ("managed-by", "deployment")


class Deployment(Part):
    """One model on the endpoint.

    Attributes:
        traffic: percent of the endpoint's requests; those of all deployments sum to 100.
        image: in Artifact Registry of the spec's region, with a tag or a digest.
        artifact: gs:// folder with the model. Vertex AI copies it and names the copy in
            AIP_STORAGE_URI; the container fetches it from there before it serves.
        environment: settings of the gateway, as text.
        port: AIP_HTTP_PORT in the container.
        shared_memory_mb: /dev/shm, which tensor parallelism needs.
        deployment_timeout_s: for pulling the image and loading the model.
    """

    name: Name
    traffic: int = Field(100, ge=0, le=100)
    image: str = Field(max_length=1024)
    artifact: str | None = Field(None, pattern=r"^gs://[a-z0-9][a-z0-9._-]{1,220}(/[^\s]*)?$")
    environment: dict[str, str] = Field({}, max_length=100)
    command: tuple[str, ...] = Field((), max_length=100)
    args: tuple[str, ...] = Field((), max_length=100)
    port: int = Field(8080, ge=1, le=65535)
    shared_memory_mb: int | None = Field(None, ge=64, le=1_000_000)
    deployment_timeout_s: int = Field(3600, ge=60, le=7200)
    startup_probe: Probe = STARTUP
    health_probe: Probe = HEALTH
    machine: Machine
    scaling: Scaling = Scaling.model_validate({})
    service_account: str | None = Field(
        None, pattern=r"^[a-z0-9-]{1,63}@[a-z0-9.-]{1,100}\.gserviceaccount\.com$"
    )
    access_logging: bool = False
    container_logging: bool = True

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return {k: as_text(v) for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_environment(self) -> Self:
        settings = check_environment(self.environment, self.port)
        self._check_artifact()
        targets, gpus = self.scaling.targets, self.machine.count or 0
        if settings.admin_port is not None and (
            targets.vllm_requests_waiting or targets.vllm_kv_usage
        ):
            raise ValueError(
                "ADMIN_PORT takes /metrics off the port where Vertex AI reads it for the vllm_* "
                "targets: remove ADMIN_PORT or these targets"
            )
        if not gpus and (targets.gpu_duty_cycle or targets.gpu_utilization):
            raise ValueError("the gpu_* targets need a machine with an accelerator: remove them")
        needed = (
            settings.tensor_parallel_size
            * settings.pipeline_parallel_size
            * settings.data_parallel_size
        )
        if needed > max(gpus, 1):
            raise ValueError(
                f"the parallel sizes in environment need {needed} GPUs and the machine has "
                f"{gpus}: take a larger machine or lower TENSOR_PARALLEL_SIZE"
            )
        return self

    def _check_artifact(self) -> None:
        if self.artifact is None or self.command:
            return
        if "MODEL_NAME" in self.environment:
            raise ValueError("artifact is what is served: remove MODEL_NAME from environment")
        if "SERVED_MODEL_NAME" not in self.environment:
            raise ValueError(
                "artifact gives no name that clients could ask for: set SERVED_MODEL_NAME in "
                "environment"
            )


class Spec(Part):
    """Everything that ``plan`` and ``apply`` go by.

    Attributes:
        name: of the endpoint, and the beginning of every model's name.
        mode: invoke passes any route on to the container; predict knows the adapter's alone.
    """

    project: Project
    region: str = Field(pattern=r"^[a-z]{2,12}(-[a-z]{3,12}){1,2}[0-9]{1,2}$")
    name: Name
    mode: Literal["invoke", "predict"] = "invoke"
    labels: dict[str, str] = Field({}, max_length=60)
    endpoint: EndpointPart = EndpointPart.model_validate({})
    deployments: tuple[Deployment, ...] = Field(max_length=20)
    rollout: Rollout = Rollout.model_validate({})

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if key in RESERVED_LABELS:
                raise ValueError(f"{key} is set by this tool: remove it")
            if not key[:1].isalpha() or not _LABEL.match(key) or not _LABEL.match(text):
                raise ValueError(
                    f"{key}: {text} is no label: a-z, 0-9, _ and -, at most 63, a letter first"
                )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "invoke" and self.endpoint.access != "dedicated":
            raise ValueError(
                f"mode: invoke needs access: dedicated, not {self.endpoint.access}: change one of "
                "them (mode: predict works with all)"
            )
        names = [each.name for each in self.deployments]
        if not names:
            raise ValueError("deployments is empty: add one, with name, image and machine")
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two deployments are called {twice[0]}: give each its own name")
        if (total := sum(each.traffic for each in self.deployments)) != 100:
            raise ValueError(f"traffic of all deployments sums to {total}: make it 100")
        for each in self.deployments:
            check_image(each.image, self.region, f"deployments.{each.name}.image")
        if self.scales_to_zero:
            if self.endpoint.access == "shared":
                raise ValueError("shared endpoints do not scale to zero: take access: dedicated")
            if len(self.deployments) > 1:
                raise ValueError("an endpoint that scales to zero holds one deployment: keep one")
        return self

    @property
    def scales_to_zero(self) -> bool:
        """Whether the API's version v1beta1 is needed."""
        return any(each.scaling.scale_to_zero is not None for each in self.deployments)

    @property
    def parent(self) -> str:
        """``projects/P/locations/R``."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def endpoint_id(self) -> str:
        """Digits, the same every time: what makes creating it again find it."""
        if self.endpoint.id is not None:
            return self.endpoint.id
        digest = hashlib.sha256(f"{self.parent}/{self.name}".encode()).digest()
        return str(100_000_000 + int.from_bytes(digest[:8], "big") % 900_000_000)

    @property
    def endpoint_name(self) -> str:
        """The endpoint's full resource name."""
        return f"{self.parent}/endpoints/{self.endpoint_id}"

    @property
    def all_labels(self) -> dict[str, str]:
        """The spec's own labels and those by which its resources are found again."""
        return {**self.labels, "managed-by": "llm-gateway", "deployment": self.name}


def check_image(image: str, region: str, where: str) -> None:
    """Raises ValueError unless Vertex AI can pull it, and always the same one."""
    found = _IMAGE.match(image)
    host = f"{region}-docker.pkg.dev"
    if found is None or found["host"] != host or found["path"].count("/") < 2:
        raise ValueError(
            f"{where}: {image} is not in Artifact Registry of {region}, which Vertex AI demands "
            f"(no multi-region, no other registry): push it to {host}/PROJECT/REPOSITORY/NAME:TAG"
        )
    if found["digest"] is None and found["tag"] in (None, "latest"):
        raise ValueError(
            f"{where}: {image} may be another image tomorrow: give a version's tag or @sha256:..."
        )


def load_spec(file: Path) -> Spec:
    """Read and check a spec. Raises VertexError with a line for every fault and its place."""
    try:
        document = read_document(file)
    except SpecFileError as error:
        raise VertexError(str(error)) from None
    try:
        return Spec.model_validate(document.content)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_input=False, include_url=False):
            where = tuple(fault["loc"])
            field = ".".join(str(part) for part in where)
            told = f"{field}: " if field else ""
            lines = _message(fault["type"], fault["msg"], str(where[-1]) if where else "")
            faults += [f"{document.place(where)}: {told}{line}" for line in lines]
        raise VertexError("\n".join(faults)) from None


def _message(kind: str, message: str, name: str) -> list[str]:
    if kind == "extra_forbidden":
        return [f"there is no {name} here: correct the name or remove it"]
    if kind == "missing":
        return ["is missing: add it"]
    return message.removeprefix("Value error, ").splitlines()
