"""Expressions of deploy/monitoring's rules as Cloud Monitoring can evaluate them for an endpoint.

Vertex AI's AutoMetrics scrapes the container and exports what begins with ``vllm:``, as
``vertex_vllm_…`` with labels of its own; nothing else of the container arrives. What the gateway
counts itself is replaced by what Vertex AI counts in front of it, or cannot be asked.
https://docs.cloud.google.com/vertex-ai/docs/predictions/view-autometrics
https://docs.cloud.google.com/monitoring/promql (names of Google's own metrics)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# Google's metrics of an endpoint in PromQL.
_ONLINE = "aiplatform_googleapis_com:prediction_online_"
RESPONSES = _ONLINE + "response_count"
LATENCIES = _ONLINE + "prediction_latencies"
REPLICAS = _ONLINE + "replicas"
CPU = _ONLINE + "cpu_utilization"
DUTY_CYCLE = _ONLINE + "accelerator_duty_cycle"

FROM, TO = "vllm:", "vertex_vllm_"
# Labels of a scraping Prometheus, and those that take their place.
LABELS = {"job": "endpoint_id", "instance": "replica_id"}
_AGGREGATIONS = frozenset(
    ("sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "quantile")
)
_GROUPING = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
_OPERATORS = frozenset(("and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"))
_WORDS = _OPERATORS | _AGGREGATIONS | _GROUPING | {"topk", "bottomk", "count_values"}
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:[a-z]+\d*)*)|(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)|(?P<other>.)"""
)
_FAILED = re.compile(r"job:gateway_requests_failed:ratio_rate(\d+[smhd])")


class NotOnVertex(Exception):
    """An expression needs a metric that does not arrive; its name is the message."""


def vertex_expression(expression: str, recorded: Mapping[str, str], endpoint_id: str) -> str:
    """The same question about one endpoint. Raises NotOnVertex.

    Args:
        recorded: expressions of recording rules by name; they are put in where they are used.
    """

    def metric(name: str) -> str:
        if (failed := _FAILED.fullmatch(name)) is not None:
            return f"({error_ratio(endpoint_id, failed[1])})"
        if name in recorded:
            return f"({vertex_expression(recorded[name], recorded, endpoint_id)})"
        if not name.startswith(FROM):
            raise NotOnVertex(name)
        return TO + name.removeprefix(FROM)

    return rewrite(expression, metric, f'endpoint_id="{endpoint_id}"')


def error_ratio(endpoint_id: str, window: str) -> str:
    """Share of the endpoint's requests that Vertex AI answered with a 5xx."""
    failed = of_endpoint(RESPONSES, endpoint_id, 'response_code=~"5.."')
    counted = of_endpoint(RESPONSES, endpoint_id)
    return (
        f"sum by (endpoint_id) (rate({failed}[{window}])) "
        f"/ (sum by (endpoint_id) (rate({counted}[{window}])) > 0)"
    )


def of_endpoint(metric: str, endpoint_id: str, *matchers: str) -> str:
    """A selector of one of Google's own metrics, which need their resource named."""
    own = f'monitored_resource="aiplatform.googleapis.com/Endpoint", endpoint_id="{endpoint_id}"'
    return f"{metric}{{{', '.join((own, *matchers))}}}"


def metrics_in(expression: str) -> set[str]:
    """Names of all metrics that are asked for."""
    found: set[str] = set()

    def note(name: str) -> str:
        found.add(name)
        return name

    rewrite(expression, note, "")
    return found


def rewrite(expression: str, metric: Callable[[str], str], matcher: str) -> str:
    """Rename metrics and grouping labels, and add ``matcher`` to every renamed selector.

    What ``metric`` gives in parentheses is an expression of its own and takes no matcher.
    """
    tokens = list(tokenize(expression))
    written: list[str] = []
    braces = brackets = position = 0
    grouping = False
    while position < len(tokens):
        kind, text = tokens[position]
        following = next_text(tokens, position)
        position += 1
        if text == "{":
            braces += 1
        elif text == "}":
            braces -= 1
        elif text in "[]":
            brackets += 1 if text == "[" else -1
        elif text == ")":
            grouping = False
        if kind == "name" and grouping:
            text = LABELS.get(text, text)
        elif kind == "name" and text in _GROUPING:
            grouping = following == "("
        elif kind == "name" and not braces and not brackets and is_metric(text, following):
            text = metric(text)
            if matcher and not text.startswith("("):
                if following == "{":
                    while tokens[position][1] != "{":
                        position += 1
                    position += 1
                    braces += 1
                    empty = next_text(tokens, position - 1) == "}"
                    text = f"{text}{{{matcher}{'' if empty else ', '}"
                else:
                    text = f"{text}{{{matcher}}}"
        written.append(text)
    return re.sub(r"\s+", " ", "".join(written)).strip()


def is_metric(name: str, following: str) -> bool:
    """Whether a name outside braces is a metric's; functions have a parenthesis after them."""
    return name.lower() not in _WORDS and following != "("


def next_text(tokens: list[tuple[str, str]], position: int) -> str:
    """The next token that is not space, or nothing."""
    rest = (text for kind, text in tokens[position + 1 :] if kind != "space")
    return next(rest, "")


def tokenize(expression: str) -> Iterator[tuple[str, str]]:
    """Kinds and texts; comments become a space."""
    for match in _TOKEN.finditer(expression):
        kind = match.lastgroup or "other"
        yield kind, " " if kind == "space" else match[0]
