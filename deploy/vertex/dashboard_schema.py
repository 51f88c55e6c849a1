"""The part of Cloud Monitoring's dashboards (v1) that is used here, as strict types.

There is no published package with these messages among the dependencies, so names follow the
REST reference: https://cloud.google.com/monitoring/api/ref_dashboards/rest/v1/projects.dashboards
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

COLUMNS = 48
Short = Annotated[str, Field(min_length=1, max_length=200)]


class Part(BaseModel):
    """Unknown fields are faults; what is None is left out of the JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeSeriesQuery(Part):
    """A query; ``unitOverride`` is a UCUM unit such as s, ms or 1."""

    prometheusQuery: Annotated[str, Field(min_length=1, max_length=10_000)]  # noqa: N815
    unitOverride: str | None = None  # noqa: N815


class DataSet(Part):
    """One query drawn in a chart."""

    timeSeriesQuery: TimeSeriesQuery  # noqa: N815
    plotType: Literal["LINE", "STACKED_AREA", "STACKED_BAR", "HEATMAP"] = "LINE"  # noqa: N815
    legendTemplate: str | None = None  # noqa: N815
    targetAxis: Literal["Y1", "Y2"] = "Y1"  # noqa: N815


class Axis(Part):
    """A vertical axis."""

    label: str = ""
    scale: Literal["LINEAR", "LOG10"] = "LINEAR"


class XyChart(Part):
    """Lines over time."""

    dataSets: Annotated[tuple[DataSet, ...], Field(min_length=1, max_length=50)]  # noqa: N815
    yAxis: Axis = Axis()  # noqa: N815


class Widget(Part):
    """What a tile shows."""

    title: Short
    xyChart: XyChart  # noqa: N815


class Tile(Part):
    """A place in a grid of 48 columns."""

    xPos: int = Field(0, ge=0, lt=COLUMNS)  # noqa: N815
    yPos: int = Field(0, ge=0)  # noqa: N815
    width: int = Field(ge=1, le=COLUMNS)
    height: int = Field(ge=1, le=200)
    widget: Widget


class MosaicLayout(Part):
    """Tiles that do not overlap."""

    columns: Literal[48] = 48
    tiles: Annotated[tuple[Tile, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        taken: set[tuple[int, int]] = set()
        for tile in self.tiles:
            if tile.xPos + tile.width > COLUMNS:
                raise ValueError(
                    f"the tile {tile.widget.title} does not fit into {COLUMNS} columns"
                )
            cells = {
                (tile.xPos + x, tile.yPos + y)
                for x in range(tile.width)
                for y in range(tile.height)
            }
            if cells & taken:
                raise ValueError(f"the tile {tile.widget.title} lies on another")
            taken |= cells
        return self


class Dashboard(Part):
    """The resource. ``name`` and ``etag`` are the server's."""

    displayName: Short  # noqa: N815
    labels: dict[str, str] = {}
    mosaicLayout: MosaicLayout  # noqa: N815
    name: str | None = None
    etag: str | None = None
