"""Parts of a spec: the endpoint, the machine, how it scales, probes, how a change is rolled out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deploy.vertex.machines import ACCELERATORS, check_pair, is_spot_only

Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/-]{0,255}$")]
Percent = Annotated[int, Field(ge=1, le=100)]
Project = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]

METRICS = {
    "vllm_requests_waiting": "prometheus.googleapis.com/vertex_vllm_num_requests_waiting",
    "vllm_kv_usage": "prometheus.googleapis.com/vertex_vllm_gpu_cache_usage_perc",
    "gpu_duty_cycle": "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle",
    "gpu_utilization": "prometheus.googleapis.com/vertex_dcgm_fi_dev_gpu_util",
    "cpu_utilization": "aiplatform.googleapis.com/prediction/online/cpu/utilization",
    "requests_per_minute": "aiplatform.googleapis.com/prediction/online/request_count",
}


class Part(BaseModel):
    """A mapping of the spec: unknown names are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class RequestLogging(Part):
    """A share of requests and answers written to BigQuery by Vertex AI itself."""

    bigquery: str = Field(pattern=r"^bq://[A-Za-z0-9:_.-]{3,300}$")
    sampling_rate: float = Field(1.0, gt=0, le=1)


class EndpointPart(Part):
    """The endpoint.

    Attributes:
        access: dedicated (own DNS name), shared (the region's), private (Private Service Connect).
        id: 1 to 9 digits; None derives them from project, region and name.
        inference_timeout_s: 60 for shared endpoints, which have no choice.
        private_projects: projects that may connect to a private endpoint.
    """

    access: Literal["dedicated", "shared", "private"] = "dedicated"
    id: str | None = Field(None, pattern=r"^[1-9][0-9]{0,8}$")
    inference_timeout_s: int = Field(600, ge=1, le=3600)
    private_projects: tuple[Project, ...] = Field((), max_length=100)
    request_logging: RequestLogging | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.access == "private" and not self.private_projects:
            raise ValueError("access: private needs private_projects, those that may connect")
        if self.access != "private" and self.private_projects:
            raise ValueError("private_projects goes with access: private: set that or remove it")
        if self.access == "shared" and "inference_timeout_s" in self.model_fields_set:
            raise ValueError(
                "a shared endpoint ends every request after 60 s: remove inference_timeout_s or "
                "take access: dedicated"
            )
        return self


class Reservation(Part):
    """Which Compute Engine reservations the machines come from."""

    use: Literal["none", "any", "specific"] = "any"
    names: tuple[Annotated[str, Field(pattern=r"^[a-z0-9/_.-]{1,300}$")], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.use == "specific") != bool(self.names):
            raise ValueError("names goes with use: specific, and use: specific needs names")
        return self


class Machine(Part):
    """One replica's machine."""

    type: str = Field(pattern=r"^[a-z0-9-]{5,40}$")
    accelerator: str | None = None
    count: int | None = Field(None, ge=1, le=16)
    spot: bool = False
    reservation: Reservation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.accelerator is None) != (self.count is None):
            raise ValueError("accelerator and count come together: set both or neither")
        if self.accelerator is not None and self.accelerator not in ACCELERATORS:
            raise ValueError(
                f"{self.accelerator} is not known here: take one of {', '.join(ACCELERATORS)}"
            )
        check_pair(self.type, self.accelerator, self.count)
        reserved = self.reservation is not None and self.reservation.use != "none"
        if self.spot and reserved:
            raise ValueError("Spot machines do not come from reservations: remove one of the two")
        if is_spot_only(self.type) and not self.spot:
            raise ValueError(
                f"{self.type} is sold as Spot or Flex-start only: set spot: true, or take the "
                "machine of 8"
            )
        return self


class Targets(Part):
    """What the autoscaler holds per replica; the metric that asks for most replicas counts."""

    vllm_requests_waiting: int | None = Field(None, ge=1, le=10_000)
    vllm_kv_usage: Percent | None = None
    gpu_duty_cycle: Percent | None = None
    gpu_utilization: Percent | None = None
    cpu_utilization: Percent | None = None
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)

    def metrics(self) -> dict[str, int]:
        """Target by the name that Vertex AI has for the metric."""
        values = ((METRICS[name], getattr(self, name)) for name in METRICS)
        return {metric: value for metric, value in values if value is not None}


class ScaleToZero(Part):
    """Seconds of quiet before the last replica goes, and the least life of a scale-up."""

    idle_s: int = Field(3600, ge=300, le=28_800)
    min_scaleup_s: int = Field(3600, ge=300, le=28_800)
    initial_replicas: int = Field(1, ge=1, le=1000)


class Scaling(Part):
    """How many replicas. ``required_replicas``: how many have to run for a deploy to succeed."""

    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(1, ge=1, le=1000)
    required_replicas: int | None = Field(None, ge=1, le=1000)
    targets: Targets = Targets.model_validate({})
    scale_to_zero: ScaleToZero | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is below min_replicas ({self.min_replicas}): raise it")
        if (self.min_replicas == 0) != (self.scale_to_zero is not None):
            raise ValueError(
                "min_replicas: 0 and scale_to_zero come together (scale_to_zero: {} takes the "
                "defaults): set both or neither"
            )
        zero = self.scale_to_zero
        if zero is not None and zero.initial_replicas > self.max_replicas:
            raise ValueError("initial_replicas is above max_replicas: lower it")
        required = self.required_replicas
        if required is not None and (zero is not None or required > self.min_replicas):
            raise ValueError("required_replicas is at most min_replicas, and not with 0: lower it")
        return self


class Probe(Part):
    """A GET that has to answer 200, on the container's port. Times in seconds."""

    path: Path
    period_s: int = Field(10, ge=1, le=240)
    timeout_s: int = Field(5, ge=1, le=240)
    failures: int = Field(4, ge=1, le=10_000)
    initial_delay_s: int = Field(0, ge=0, le=7200)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.timeout_s > self.period_s:
            raise ValueError(f"timeout_s is above period_s ({self.period_s}): lower it")
        return self


class Rollout(Part):
    """How a new version takes over, step by step, and when it is taken back.

    Attributes:
        steps: share of the traffic, in percent, ending with 100.
        watch_s: how long each step is watched before the next.
        max_error_rate: share of requests with a 5xx.
        max_latency_ms: of the 95th percentile; None does not look at it.
        min_requests: with fewer in a watch period nothing is concluded from them.
    """

    steps: tuple[Percent, ...] = Field((10, 50, 100), max_length=20)
    watch_s: int = Field(600, ge=0, le=86_400)
    max_error_rate: float = Field(0.02, ge=0, le=1)
    max_latency_ms: float | None = Field(None, gt=0, le=3_600_000)
    min_requests: int = Field(20, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1:] != (100,):
            raise ValueError("steps rise and end with 100, such as [10, 50, 100]")
        return self
