"""The documentation lists exactly what the code does."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from engine.base import Load, ModelInfo
from gateway.errors import DEFECT, TABLE, Row
from gateway.http.edge import OPEN_PATHS
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.parameters import Parameter
from gateway.telemetry.metrics import EngineSample, Metrics

DOCS = Path(__file__).parents[2] / "docs"


def parameter_row(parameter: Parameter) -> str:
    bounds = ""
    if parameter.treatment == "honoured":
        bounds = shown_bounds(parameter.reader.schema())
    elif parameter.harmless:
        bounds = "except " + " or ".join(f"`{value!r}`" for value in parameter.harmless)
    return f"| `{parameter.name}` | {parameter.treatment} | {bounds} | {parameter.note} |"


def shown_bounds(schema: dict[str, object]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if low is not None:
        return f"{low:g} to {schema['maximum']:g}" if abs(int(low)) < 2**40 else "64-bit integer"  # type: ignore[call-overload,str-format]
    for key, unit in (("maxLength", "characters"), ("maxItems", "items")):
        if key in schema:
            return f"at most {schema[key]} {unit}"
    return f"at most {schema['maxProperties']} entries" if "maxProperties" in schema else ""


def error_row(name: str, row: Row) -> str:
    retry = {None: "", True: "yes", False: "no"}[row.retry]
    after = f"{row.retry_after} s" if row.retry_after is not None else ""
    return f"| {row.status} | `{row.type}` | `{row.code}` | `{name}` | {retry} | {after} |"


def test_every_parameter_is_documented() -> None:
    rows = [parameter_row(parameter) for parameter in CHAT.values()]
    assert documented("api.md", "| `") >= set(rows), "\n" + "\n".join(rows)


def test_every_error_is_documented() -> None:
    rows = [error_row(kind.__name__, row) for kind, row in TABLE.items()]
    rows.append(error_row("anything else", DEFECT))
    assert documented("errors.md", "| ") >= set(rows), "\n" + "\n".join(rows)


def test_every_metric_is_documented(fake_info: ModelInfo) -> None:
    sample = EngineSample("m", 0, "fake", "asked", True, 0, fake_info, Load(0, 0, 0, 16, 1))
    metrics = Metrics(lambda: [sample])
    metrics.requests["/x", "completed"] += 1
    metrics.models["m"].finished["stop"] += 1
    text = (DOCS / "metrics.md").read_text()
    for family in text_string_to_metric_families(metrics.render().decode()):
        if not family.name.startswith(("process_", "python_")):
            suffix = "_total" if family.type == "counter" else ""
            assert f"`{family.name}{suffix}`" in text, family.name


def test_open_paths_are_documented() -> None:
    text = (DOCS / "api.md").read_text()
    for path in OPEN_PATHS:
        assert f"`{path}`" in text


def documented(name: str, start: str) -> set[str]:
    return {line for line in (DOCS / name).read_text().splitlines() if line.startswith(start)}
