"""From rates to the table, the ratios and the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.peers import OWN, PEERS, REFERENCE
from benchmarks.rounds import Measure, Results
from benchmarks.shapes import Shape

# Ratios to llama.cpp Q8_0 in the same round that this project sets itself.
RATIO_GOALS = {"prefill": 1.6, "decode1": 1.0, "decode8": 1.8, "decode16": 1.8}
CEILING_GOAL = 0.60
# Above this share of the CPU used by others the table says so.
DISTURBED = 0.05


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal and what was measured against it."""

    what: str
    wanted: str
    got: str
    reached: bool | None

    def row(self) -> list[str]:
        """The goal as a table row."""
        verdict = {True: "yes", False: "no", None: "not measured"}[self.reached]
        return [self.what, self.wanted, self.got, verdict]


def number(value: float) -> str:
    """Three significant digits are more than the noise allows."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Median with the smallest and the largest value."""
    if not values:
        return "–"
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, padded so that it reads well in a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def round_ratios(results: Results, measure: str, key: str = OWN) -> list[float]:
    """Per round: the engine's rate over llama.cpp Q8_0's in the same round."""
    own = results.rates.get(key, {}).get(measure, [])
    reference = results.rates.get(REFERENCE, {}).get(measure, [])
    return [a / b for a, b in zip(own, reference, strict=False)]


def ceilings(results: Results, key: str) -> list[float]:
    """Per round: the tokens per second that the memory bandwidth allows one stream."""
    size = results.infos.get(key, {}).get("weight_bytes")
    return [bandwidth / size for bandwidth in results.bandwidth] if size else []


def ceiling_shares(results: Results, key: str) -> list[float]:
    """Per round: single-stream rate as a share of the ceiling."""
    rates = results.rates.get(key, {}).get("decode1", [])
    return [a / b for a, b in zip(rates, ceilings(results, key), strict=False)]


def rates_table(results: Results, columns: list[Measure]) -> str:
    """Tokens per second of every engine."""
    head = ["tok/s, median (min–max)", *(c.title for c in columns), "1 stream / ceiling"]
    rows = []
    for key, info in results.infos.items():
        name = PEERS[key].title
        if key == OWN:
            name += f", {info.get('variant', '')}"
        cells = [spread(results.rates.get(key, {}).get(c.key, [])) for c in columns]
        shares = ceiling_shares(results, key)
        share = f"{median(shares):.0%} of {number(median(ceilings(results, key)))}"
        rows.append([name, *cells, share if shares else "–"])
    for key, error in results.errors.items():
        if key not in results.infos:
            rows.append([PEERS[key].title, *["–"] * len(columns), f"not run: {error[:60]}"])
    return table(head, rows)


def ratios_table(results: Results, columns: list[Measure]) -> str:
    """Every engine's rates over llama.cpp Q8_0's, computed within each round."""
    rows = [
        [PEERS[key].title, *(spread(round_ratios(results, c.key, key)) for c in columns)]
        for key in results.rates
        if key != REFERENCE
    ]
    return table(["ratio to llama.cpp Q8_0", *(c.title for c in columns)], rows)


def goals(shape: Shape, results: Results, columns: list[Measure]) -> list[Goal]:
    """The speed goals of the bare engine."""
    found = []
    titles = {c.key: c.title for c in columns}
    for measure, wanted in RATIO_GOALS.items():
        values = round_ratios(results, measure)
        reached = median(values) >= wanted if values else None
        what = f"{shape.title}: {titles[measure]} / llama.cpp Q8_0"
        found.append(Goal(what, f"≥ {wanted}", spread(values), reached))
    shares = ceiling_shares(results, OWN)
    found.append(
        Goal(
            f"{shape.title}: 1 stream / bandwidth ceiling",
            f"≥ {CEILING_GOAL:.0%}",
            f"{median(shares):.0%}" if shares else "–",
            median(shares) >= CEILING_GOAL if shares else None,
        )
    )
    return found


def goals_table(found: list[Goal]) -> str:
    """Goals beside what was measured."""
    return table(["goal", "wanted", "measured", "reached"], [goal.row() for goal in found])


def disturbance(results: Results) -> str:
    """One line on how far to trust the numbers."""
    if not results.elsewhere:
        return ""
    share = sum(results.elsewhere) / len(results.elsewhere)
    text = f"Other programs used {share:.0%} of the CPU time while this was measured."
    if share > DISTURBED:
        text += (
            " **That is too much: the ratios are not to be trusted; run it on a quiet machine.**"
        )
    return text


def shape_json(results: Results) -> dict[str, Any]:
    """Everything behind the tables of one shape."""
    return {
        "rates_tok_s": results.rates,
        "engines": results.infos,
        "errors": results.errors,
        "bandwidth_bytes_s": results.bandwidth,
        "load_average": results.load,
        "cpu_used_elsewhere": results.elsewhere,
        "ratios_to_reference": {
            key: {m: round_ratios(results, m, key) for m in rates}
            for key, rates in results.rates.items()
        },
        "ceiling_tok_s": {key: ceilings(results, key) for key in results.infos},
        "share_of_ceiling": {key: ceiling_shares(results, key) for key in results.infos},
    }
