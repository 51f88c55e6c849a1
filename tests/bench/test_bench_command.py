"""The command as a user runs it, against a real server with known times."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench_calls import ITL_S, KEY, TTFT_S, Silent
from server_process import ServerProcess
from typer.testing import CliRunner

from gateway.bench.compare import read_runs
from gateway.bench.lengths import read_lengths
from gateway.bench.load import Counts
from gateway.bench.options import BenchOptions, Server
from gateway.bench.session import run_bench
from gateway.cli import app

WITHIN_S = 120
TOKENS = "vllm:generation_tokens_total"


def bench(*arguments: str) -> Any:
    """The command, in this process."""
    return CliRunner().invoke(app, ["bench", *arguments], env={"OPENAI_API_KEY": KEY})


def test_help_shows_examples() -> None:
    shown = bench("--help")
    assert shown.exit_code == 0
    assert "llm-gateway bench compare before.json after.json" in shown.output
    assert "--goodput" in shown.output


@pytest.fixture(scope="module")
def result(timed: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of two stages through the command, with all it writes."""
    folder = tmp_path_factory.mktemp("result")
    out, html = folder / "run.json", folder / "run.html"
    shown = bench(
        *("--base-url", timed.url, "--concurrency", "1,4", "--num-prompts", "12"),
        *("--input-len", "60", "--output-len", "uniform:5:10", "--goodput", "ttft:60000"),
        *("--goodput", "itl:0.001", "--out", str(out), "--html", str(html), "--label", "one <b>"),
    )
    assert shown.exit_code == 0, shown.output
    return {
        "shown": shown.output,
        "html": html.read_text(),
        "file": out,
        **json.loads(out.read_text()),
    }


def test_times_agree_with_the_script(result: dict[str, Any]) -> None:
    """No lower than the server's own delays, and higher by no more than a busy machine explains."""
    assert (result["completed"], result["failed"]) == (24, 0)
    assert TTFT_S * 1000 * 0.95 <= result["median_ttft_ms"] <= TTFT_S * 1000 * 25
    assert ITL_S * 1000 * 0.5 <= result["median_itl_ms"] <= ITL_S * 1000 * 25
    assert ITL_S * 1000 * 0.5 <= result["median_tpot_ms"] <= ITL_S * 1000 * 25
    for ttft, itls, latency, tokens in zip(
        *(result[name] for name in ("ttfts", "itls", "latencies", "output_lens")), strict=True
    ):
        assert ttft + sum(itls) == pytest.approx(latency)
        assert len(itls) == tokens - 1
        assert 5 <= tokens <= 10
        assert latency >= (TTFT_S + (tokens - 1) * ITL_S) * 0.95


def test_prompts_have_the_wanted_length_in_the_servers_tokens(result: dict[str, Any]) -> None:
    """Counted by /tokenize; whole words of a tokenizer of bytes miss by a few."""
    assert result["wished_input_tokens"] == 24 * 60
    assert result["total_input_tokens"] == pytest.approx(24 * 60, rel=0.1)
    assert max(result["input_lens"]) - min(result["input_lens"]) <= 8


def test_stages_are_measured_on_their_own(result: dict[str, Any]) -> None:
    alone, four = result["stages"]
    assert (alone["max_concurrent_requests"], four["max_concurrent_requests"]) == (1, 4)
    assert alone["completed"] == four["completed"] == 12
    assert result["max_concurrency"] == [1, 4]
    assert result["request_goodput"] == 0
    assert result["generator"]["cpu_us_per_output_token"] > 0
    for heading in ("4 at once", "time to first token", "generator:", "output tokens/s"):
        assert heading in result["shown"]


class Page(HTMLParser):
    """Collects what a page refers to, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "action", "srcset")
            or name.startswith("on")
        ]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_needs_nothing_else(result: dict[str, Any]) -> None:
    page = Page()
    page.feed(result["html"])
    page.close()
    assert page.open == []
    assert page.references == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("svg") == 5
    assert "url(" not in result["html"]
    assert "@import" not in result["html"]
    # Only the address of the server that was measured.
    assert set(re.findall(r"https?://[^\s,<]*", result["html"])) == {result["base_url"]}
    assert "one &lt;b&gt;" in result["html"]
    assert "nan" not in " ".join(re.findall(r'd="([^"]*)"', result["html"]))


def test_a_result_compared_with_itself_differs_in_nothing(
    result: dict[str, Any], tmp_path: Path
) -> None:
    file, html = str(result["file"]), tmp_path / "both.html"
    shown = bench("compare", file, file, "--json", "--html", str(html))
    assert shown.exit_code == 0, shown.output
    sections = json.loads(shown.stdout)
    assert [section["stage"] for section in sections] == ["1 at once", "4 at once"]
    rows = [row for section in sections for row in section["rows"]]
    assert {row["difference"] for row in rows} == {0}
    assert {row["verdict"] for row in rows} <= {"within noise", "too few values"}
    assert html.read_text().count("<svg") == 5
    assert "within noise" in bench("compare", file, file).output


def test_two_servers_take_turns(timed: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "both.json"
    shown = bench(
        *("--base-url", timed.url, "--against", f"{timed.url}/v1", "--rounds", "3"),
        *("--num-prompts", "9", "--concurrency", "3", "--output-len", "4", "--out", str(out)),
    )
    assert shown.exit_code == 0, shown.output
    first, second = read_runs(out)
    assert (first["completed"], second["completed"]) == (9, 9)
    spans = [
        (s["began"], s["ended"], run["label"], s["round"])
        for run in (first, second)
        for s in run["stages"]
    ]
    turns = sorted(spans)
    assert [(label, round_) for *_, label, round_ in turns] == [
        ("A", 0),
        ("B", 0),
        ("B", 1),
        ("A", 1),
        ("A", 2),
        ("B", 2),
    ]
    assert all(before[1] <= after[0] for before, after in pairwise(turns))
    [section] = json.loads(out.read_text())["comparison"]
    assert section["method"] == "bootstrap over 3 rounds in turns"
    again = bench("compare", str(out), "--json")
    assert json.loads(again.stdout) == [section]


def test_completions_and_prompts_of_ones_own(timed: ServerProcess, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "12345", "output_tokens": 3}\n{"prompt": "123"}\n')
    shown = bench(
        *("--base-url", timed.url, "--endpoint", "completions", "--prompts", str(prompts)),
        *("--output-len", "5", "--ignore-eos", "--json"),
    )
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert sorted(zip(found["input_lens"], found["output_lens"], strict=True)) == [(3, 5), (5, 3)]
    assert found["backend"] == "openai"


def test_a_trace_and_the_overhead(timed: ServerProcess, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 100 + k * 20, "input_length": 40, "output_length": 3} for k in range(10)]
    trace.write_text("\n".join(map(json.dumps, rows)))
    shown = bench(
        *("--base-url", timed.url, "--trace", str(trace), "--trace-unit", "0.001", "--json"),
        "--measure-overhead",
    )
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["request_rate"] == "trace"
    assert found["output_lens"] == [3] * 10
    # Never sent before it is due, which the lateness of each tells.
    dues = [at - late for at, late in zip(found["start_times"], found["queue_times"], strict=True)]
    assert [due - dues[0] for due in dues] == pytest.approx([k * 0.02 for k in range(10)])
    added = found["generator"]["added"]
    assert added["requests"] >= 10
    for name in ("to_ttft", "to_each_event"):
        assert 0 < added[f"median_{name}_ms"] <= added[f"p99_{name}_ms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-len", "long"], "--input-len 'long' is not a length"),
        (["--goodput", "speed:3"], "--goodput 'speed:3' is not NAME:MILLISECONDS"),
        (["--header", "x"], "--header 'x' is not NAME=VALUE"),
        (["--extra-body", "[1]"], "--extra-body must be a JSON object"),
        (["--extra-body", "{"], "--extra-body is not JSON"),
        (["--concurrency", "1.5"], "--concurrency '1.5' must be whole numbers"),
        (["--request-rate", "inf"], "--request-rate must be above 0"),
        (["--prompts", "none.jsonl"], "none.jsonl cannot be read: No such file"),
        (["--out", "/nowhere/x.json"], "/nowhere/x.json cannot be written"),
        (["--ca-file", "none.pem"], "--ca-file none.pem is no file"),
        (["--api-key", "wrong"], "needs a valid key (--api-key or OPENAI_API_KEY)"),
        (["--model", "nope"], "HTTP 404: The model 'nope' does not exist"),
        (["--num-prompts", "3", "--input-len", "99999"], "no request was completed by server"),
    ],
)
def test_mistakes_are_one_sentence(
    timed: ServerProcess, arguments: list[str], message: str
) -> None:
    shown = bench("--base-url", timed.url, *arguments)
    assert shown.exit_code == 1
    assert message in shown.stderr.replace("\n", " ")
    assert "Traceback" not in shown.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("{}", "is no result of"),
        ("[]", "is no result"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    shown = bench("compare", str(file), str(file))
    assert shown.exit_code == 1
    assert message in shown.stderr


def test_a_full_disk_is_said_after_the_figures(result: dict[str, Any]) -> None:
    file = str(result["file"])
    shown = bench("compare", file, file, "--out", "/dev/full")
    assert shown.exit_code == 1
    assert "within noise" in shown.stdout
    assert "/dev/full cannot be written: No space left on device" in shown.stderr


def test_certificates_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    shown = bench("--base-url", "https://127.0.0.1:1", "--ca-file", str(file))
    assert shown.exit_code == 1
    assert "ca.pem holds no certificates" in shown.stderr.replace("\n", " ")


def test_results_of_vllm_are_compared_without_a_report(
    result: dict[str, Any], tmp_path: Path
) -> None:
    """Which lack what only this command writes."""
    whole = read_runs(result["file"])[0]
    ours = ("stages", "figures_by_stage", "timeline", "generator", "run", "errors_by_kind")
    whole = {name: value for name, value in whole.items() if name not in ours} | {"label": None}
    file = tmp_path / "vllm.json"
    file.write_text(json.dumps(whole))
    shown = bench("compare", str(result["file"]), str(file))
    assert shown.exit_code == 0, shown.output
    assert "whole run: vllm less one <b>" in shown.output
    assert "within noise" in shown.output
    shown = bench("compare", str(file), str(file), "--html", str(tmp_path / "x.html"))
    assert shown.exit_code == 1
    assert "--html needs two results of llm-gateway bench" in shown.stderr
    file.write_text(json.dumps(whole | {"ttfts": [1.0]}))
    shown = bench("compare", str(file), str(file))
    assert shown.exit_code == 1
    assert "is damaged: its lists of requests differ in length" in shown.stderr.replace("\n", " ")


def test_one_run_cannot_be_compared(result: dict[str, Any]) -> None:
    shown = bench("compare", str(result["file"]))
    assert shown.exit_code == 1
    assert "two runs can be compared, and these files hold 1" in shown.stderr


def test_ctrl_c_keeps_what_was_measured(timed: ServerProcess, tmp_path: Path) -> None:
    out, html = tmp_path / "run.json", tmp_path / "run.html"
    command = [
        *(sys.executable, "-m", "gateway", "bench", "--base-url", timed.url, "--api-key", KEY),
        *("--concurrency", "4", "--num-prompts", "100000", "--output-len", "8"),
        *("--input-len", "30", "--out", str(out), "--html", str(html)),
    ]
    before = timed.metric(TOKENS) + 300
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            timed.wait_for(lambda: timed.metric(TOKENS) > before, "the load to be on its way")
            run.send_signal(signal.SIGINT)
            shown, errors = run.communicate(timeout=WITHIN_S)
        finally:
            run.kill()
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert "what was measured so far is kept" in errors
    found = json.loads(out.read_text())
    assert found["completed"] > 0
    assert found["failed"] == 0
    assert found["completed"] + found["interrupted"] == found["num_prompts"]
    assert "requests completed" in shown
    assert "ended early" in html.read_text()


def test_a_server_that_dies_in_the_middle(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, options={"ttft_s": TTFT_S, "itl_s": ITL_S}).wait_ready()

    class Killer(Silent):
        """Ends the server when eight requests have been answered."""

        @contextlib.asynccontextmanager
        async def following(self, counts: Counts) -> AsyncIterator[None]:
            async def watch() -> None:
                while counts.done < 8:
                    await asyncio.sleep(0.005)
                server.process.kill()

            task = asyncio.create_task(watch())
            try:
                yield
            finally:
                await task

    try:
        options = BenchOptions(
            (Server("A", server.url),),
            concurrencies=(4,),
            requests=60,
            output_len=read_lengths("10", "x"),
        )
        [found] = run_bench(options, Killer()).documents
    finally:
        server.kill()
    assert 8 <= found["completed"] < 60
    assert found["completed"] + found["failed"] == found["num_prompts"] == 60
    kinds = set(found["errors_by_kind"])
    assert kinds <= {"stream cut off", "connection lost", "connection refused", "no connection"}
    assert "connection refused" in kinds
