"""The one spec of a service: read from YAML, checked whole before anything is sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deploy.cloudrun import CloudRunError
from deploy.cloudrun.environment import MOST_CONCURRENT, check_environment, full_environment, slots
from deploy.spec_file import SpecFileError, as_text, read_document
from gateway.settings import Settings

# GiB of memory that go with a number of vCPUs, from and to:
# https://cloud.google.com/run/docs/configuring/services/memory-limits
MEMORY = {1: (1, 4), 2: (1, 8), 4: (2, 16), 6: (4, 24), 8: (4, 32)}
# https://cloud.google.com/run/docs/configuring/services/gpu
GPU_LEAST = (4, 16)
# A startup probe may take period x failures this long at most.
LONGEST_START_S = 240
STARTUP_PERIOD_S = 5
_IMAGE = re.compile(
    r"^(?P<host>[a-z0-9.-]+)/(?P<path>[a-z0-9._/-]+?)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$"
)
_MEMBER = re.compile(r"^(user|group|serviceAccount|domain|principal|principalSet):\S+$")


class Part(BaseModel):
    """A mapping of the spec: unknown names are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(Part):
    """Where a variable's value is in Secret Manager.

    Attributes:
        version: a number; a new one takes effect with the next apply. ``latest`` is looked up
            whenever an instance starts.
    """

    secret: str = Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")
    version: str = Field("latest", pattern=r"^(latest|[1-9][0-9]*)$")

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return as_text(value)


class Scaling(Part):
    """How many instances run. ``min: 0`` scales to zero, and the next request waits for a start."""

    min: int = Field(1, ge=0, le=1000)
    max: int = Field(10, ge=1, le=1000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min: {self.min} is more than max: {self.max}")
        return self


class Access(Part):
    """Who reaches the service. A key of the gateway is needed on top.

    Attributes:
        ingress: from where: ``internal`` (the project's networks), ``load-balancer`` (these and
            external application load balancers), ``all`` (the internet).
        invokers: IAM members that may call it.
        public: everybody may: IAM lets all through, and only the gateway's keys protect it.
    """

    ingress: Literal["internal", "load-balancer", "all"] = "load-balancer"
    invokers: tuple[str, ...] = Field((), max_length=100)
    public: bool = False

    @field_validator("invokers")
    @classmethod
    def _members(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for member in value:
            if member in ("allUsers", "allAuthenticatedUsers"):
                raise ValueError(f"{member} is everybody: say public: true if that is meant")
            if not _MEMBER.match(member):
                raise ValueError(
                    f"{member} is no IAM member such as serviceAccount:NAME@PROJECT.iam."
                    "gserviceaccount.com, user:NAME@HOST or group:NAME@HOST"
                )
        return value


class Bucket(Part):
    """A Cloud Storage bucket mounted read-only, for models."""

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")
    path: str = Field("/models", pattern=r"^/[A-Za-z0-9._/-]{1,255}$")


class Spec(Part):
    """One service.

    Attributes:
        image: in Artifact Registry, with a tag that is not ``latest`` or a digest.
        memory: of an instance, such as ``8Gi``. Files count: there is no disk.
        concurrency: requests per instance; None takes what its engines decode together.
        timeout_s: after which Cloud Run ends a request, streams among them.
        startup_s: for loading the model.
        billing: ``instance`` keeps the CPU between requests, which the engine's and the gateway's
            own work (records of usage, health of targets) needs; ``request`` takes it away.
        launch_stage: BETA where a field is not generally available yet.
    """

    project: str = Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
    region: str = Field(pattern=r"^[a-z]+-[a-z]+[0-9]+$")
    name: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$")
    image: str = Field(max_length=1024)
    cpu: int = 4
    memory: str = Field("8Gi", pattern=r"^[1-9][0-9]?Gi$")
    gpu: Literal["nvidia-l4"] | None = None
    port: int = Field(8080, ge=1024, le=65535)
    environment: dict[str, str] = Field({}, max_length=100)
    secrets: dict[str, Secret] = Field({}, max_length=50)
    models: Bucket | None = None
    scaling: Scaling = Scaling.model_validate({})
    concurrency: int | None = Field(None, ge=1, le=MOST_CONCURRENT)
    access: Access = Access.model_validate({})
    service_account: str | None = Field(
        None, pattern=r"^[a-z0-9-]{1,63}@[a-z0-9.-]{1,100}\.gserviceaccount\.com$"
    )
    timeout_s: int = Field(3600, ge=1, le=3600)
    startup_s: int = Field(LONGEST_START_S, ge=STARTUP_PERIOD_S, le=LONGEST_START_S)
    billing: Literal["instance", "request"] = "instance"
    cpu_boost: bool = True
    session_affinity: bool = False
    launch_stage: Literal["GA", "BETA"] = "GA"

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return {k: as_text(v) for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("image")
    @classmethod
    def _pinned(cls, value: str) -> str:
        found = _IMAGE.match(value)
        if found is None or not found["host"].endswith("-docker.pkg.dev"):
            raise ValueError(
                f"{value} is not in Artifact Registry: REGION-docker.pkg.dev/PROJECT/REPOSITORY/"
                "NAME:TAG"
            )
        if not found["digest"] and found["tag"] in (None, "latest"):
            raise ValueError(
                f"{value} may be another image tomorrow: give it a tag of its own, or a digest"
            )
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cpu not in MEMORY:
            raise ValueError(f"cpu: {self.cpu} is none of {', '.join(map(str, MEMORY))}")
        least, most = MEMORY[self.cpu]
        if not least <= self.gib <= most:
            raise ValueError(
                f"memory: {self.memory} does not go with cpu: {self.cpu}, which takes {least}Gi to "
                f"{most}Gi"
            )
        if self.gpu is not None:
            if (self.cpu, self.gib) < GPU_LEAST or self.gib < GPU_LEAST[1]:
                raise ValueError(
                    f"gpu: {self.gpu} needs cpu: {GPU_LEAST[0]} and memory: {GPU_LEAST[1]}Gi at "
                    "least"
                )
            if self.billing == "request":
                raise ValueError(f"gpu: {self.gpu} needs billing: instance")
        self.settings()
        return self

    @property
    def gib(self) -> int:
        return int(self.memory.removesuffix("Gi"))

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def full_name(self) -> str:
        return f"{self.parent}/services/{self.name}"

    def settings(self) -> Settings:
        """The gateway's settings in an instance. Raises ValueError."""
        return check_environment(
            self.environment, self.secrets, self.port, gpu=self.gpu is not None
        )

    def full_environment(self) -> dict[str, str]:
        """The variables of the container that are no secrets."""
        return full_environment(self.environment, gpu=self.gpu is not None)

    def requests_per_instance(self) -> int:
        """Beyond that Cloud Run starts another instance, or has requests wait."""
        return self.concurrency or slots(self.settings(), gpu=self.gpu is not None)


def load_spec(file: Path) -> Spec:
    """Read and check a spec. Raises CloudRunError with a line for every fault."""
    try:
        document = read_document(file)
    except SpecFileError as error:
        raise CloudRunError(str(error)) from None
    try:
        return Spec(**document.content)
    except ValidationError as error:
        faults = [_fault(document.place, each) for each in error.errors()]
        raise CloudRunError("\n".join(faults)) from None


def _fault(place: Any, error: Any) -> str:
    where = tuple(error["loc"])
    name = ".".join(map(str, where))
    told = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        told = "no such field: correct its name or remove it"
    elif error["type"] == "missing":
        told = "is missing"
    return f"{place(where)}: {name + ': ' if name else ''}{told}"
