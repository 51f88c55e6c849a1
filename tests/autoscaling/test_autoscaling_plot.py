"""The picture of a run is an SVG that every program reads, and shows what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.autoscaling.plot import Line, Panel, nice, svg

SVG = "{http://www.w3.org/2000/svg}"
SHIPPED = Path(__file__).parents[2] / "docs" / "deploy" / "autoscaling.svg"


def lines(text: str) -> list[list[float]]:
    """Every line's numbers: where it begins, then x and y of each step."""
    paths = ElementTree.fromstring(text).iter(f"{SVG}path")
    drawn = [path.attrib["d"] for path in paths if path.attrib.get("fill") == "none"]
    return [[float(number) for number in re.findall(r"[\d.]+", d)] for d in drawn]


def test_a_value_holds_until_the_next_and_zero_is_at_the_bottom() -> None:
    panel = Panel("A & B", [Line("up", [0, 4, 4]), Line("flat", [2, 2, 2])])
    flat, up = lines(svg([0.0, 5.0, 10.0], [panel], "s <x>"))
    assert up[0] == flat[0]
    assert [up[2], up[4]] == [flat[2], flat[4]]
    assert up[1] > up[3] == up[5]
    assert flat[1] == flat[3] == flat[5] == pytest.approx((up[1] + up[3]) / 2)


def test_nothing_measured_is_an_empty_plot() -> None:
    assert lines(svg([], [Panel("none", [Line("a", [])])], "s")) == [[]]


@pytest.mark.parametrize(
    ("most", "axis"), [(0, 1), (1, 1), (3, 3.2), (47, 60), (48, 60), (0.3, 0.32)]
)
def test_axes_end_at_round_numbers(most: float, axis: float) -> None:
    assert nice(most) == pytest.approx(axis)


def test_the_picture_of_the_documentation_is_one_of_these() -> None:
    running, waiting, asked, ready = sorted(lines(SHIPPED.read_text()), key=len)[:4]
    assert len(running) == len(waiting) == len(asked) == len(ready) > 100
