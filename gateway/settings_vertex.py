"""What Vertex AI tells a serving container in its environment."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

ROUTE = r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1023}$"


class VertexSettings(BaseSettings):
    """Mixed into ``Settings``. Vertex sets these itself; nobody else should."""

    aip_http_port: int | None = Field(
        None, ge=1, le=65535, description="Set by Vertex AI: the port to bind in place of PORT."
    )
    aip_health_route: str | None = Field(
        None,
        pattern=ROUTE,
        description="Set by Vertex AI: a further path that answers as /health/ready does.",
    )
    aip_predict_route: str | None = Field(
        None,
        pattern=ROUTE,
        description="Set by Vertex AI: a further path that answers as /predict does.",
    )

    vertex_auth: Literal["key", "iam"] = Field(
        "key",
        description="iam, in a container of Vertex AI only: whoever its IAM lets through needs no "
        "key, except for the admin API.",
    )

    @field_validator("aip_http_port", "aip_health_route", "aip_predict_route", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _iam_needs_vertex(self) -> Self:
        if self.vertex_auth == "iam" and self.aip_http_port is None:
            raise ValueError(
                "VERTEX_AUTH=iam lets everybody in who reaches the port, and AIP_HTTP_PORT is not "
                "set, so nothing says that this is Vertex AI: remove VERTEX_AUTH here"
            )
        return self
