"""Lengths, arrivals, files and options: what is sent, and when."""

import itertools
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest

from gateway.bench.errors import BenchError
from gateway.bench.files import read_prompts, read_trace
from gateway.bench.lengths import read_lengths
from gateway.bench.options import BenchOptions, Server, read_numbers, read_objectives
from gateway.bench.plan import Plan, arrivals
from gateway.bench.target import base_url
from gateway.bench.words import WORDS, Vocabulary

SERVER = (Server("A", "http://127.0.0.1:1"),)


def drawn(spec: str, count: int = 20_000) -> np.ndarray:
    rng = Random(1)
    lengths = read_lengths(spec, "--input-len")
    return np.array([lengths.sample(rng) for _ in range(count)])


def test_fixed_lengths() -> None:
    assert set(drawn("128", 50)) == set(drawn("fixed:128", 50)) == {128}


def test_uniform_lengths_reach_both_ends() -> None:
    found = drawn("uniform:3:6")
    assert set(found) == {3, 4, 5, 6}
    assert np.bincount(found)[3:].min() > 4500


def test_lognormal_lengths_have_their_quantiles() -> None:
    found = drawn("lognormal:300:2000")
    assert np.median(found) == pytest.approx(300, rel=0.03)
    assert np.percentile(found, 95) == pytest.approx(2000, rel=0.05)


def test_normal_and_exponential_lengths() -> None:
    normal = drawn("normal:200:20")
    assert normal.mean() == pytest.approx(200, rel=0.01)
    assert normal.std() == pytest.approx(20, rel=0.05)
    assert drawn("exponential:200").mean() == pytest.approx(200, rel=0.03)


def test_lengths_stay_in_bounds() -> None:
    found = drawn("exponential:100:min=20:max=150")
    assert (found.min(), found.max()) == (20, 150)
    assert drawn("normal:1:50").min() == 1


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "abc",
        "12:3",
        "uniform:5",
        "uniform:9:3",
        "normal:5:-1",
        "lognormal:9:3",
        "fixed:inf",
        "0",
        "fixed:5:min=9:max=2",
        "fixed:5:low=2",
        "uniform:1:nan",
        "5:min=x",
    ],
)
def test_unusable_lengths_name_the_option(spec: str) -> None:
    with pytest.raises(BenchError, match=r"^--output-len .*lognormal:MEDIAN:P95"):
        read_lengths(spec, "--output-len")


@pytest.mark.parametrize("burstiness", [1.0, 4.0, 0.25])
def test_pauses_are_gamma_distributed(burstiness: float) -> None:
    times = list(itertools.islice(arrivals(5.0, burstiness, Random(2)), 40_000))
    pauses = np.diff(times)
    assert times[0] == 0
    assert pauses.mean() == pytest.approx(0.2, rel=0.03)
    # Coefficient of variation of a gamma distribution; 1 for Poisson.
    assert pauses.std() / pauses.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_a_metronome() -> None:
    times = list(itertools.islice(arrivals(4.0, math.inf, Random(0)), 4))
    assert times == pytest.approx([0, 0.25, 0.5, 0.75])


def test_equal_seeds_send_equal_load_and_other_rounds_another() -> None:
    options = BenchOptions(
        SERVER, rates=(20.0,), requests=50, input_len=read_lengths("uniform:5:500", "x"), seed=3
    )

    def sent(plan: Plan, round_: int, words: str) -> list[tuple[float | None, int, str]]:
        return [(w.due_s, w.input_len, w.seed) for w in plan.stages(round_, words)[0].wishes]

    first = sent(Plan(options), 0, "A")
    assert first == sent(Plan(options), 0, "A")
    assert first != sent(Plan(options), 1, "A")
    other = sent(Plan(options), 0, "B")
    assert [one[:2] for one in first] == [one[:2] for one in other]
    assert not {one[2] for one in first} & {one[2] for one in other}


def test_time_ends_an_open_loop() -> None:
    options = BenchOptions(SERVER, rates=(100.0, 200.0), duration_s=2.0)
    slow, fast = Plan(options).stages(0, "A")
    assert slow.count == pytest.approx(200, rel=0.3)
    assert fast.count == pytest.approx(400, rel=0.3)
    assert max(w.due_s or 0 for w in slow.wishes) < 2.0


def test_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"timestamp": 5000, "input_length": 10, "output_length": 3}\n\n'
        '{"timestamp": 5500, "input_length": 20}\n'
        '{"timestamp": 7000, "prompt": "hi", "output_length": 4}\n'
    )
    lines = read_trace(file, 0.001)
    assert [line.at_s for line in lines] == pytest.approx([0, 0.5, 2.0])
    options = BenchOptions(SERVER, trace=file, trace_unit_s=0.001, trace_speed=2.0)
    [stage] = Plan(options).stages(0, "A")
    wishes = list(stage.wishes)
    assert [wish.due_s for wish in wishes] == pytest.approx([0, 0.25, 1.0])
    assert [wish.input_len for wish in wishes[:2]] == [10, 20]
    assert [wish.output_len for wish in wishes] == [3, 128, 4]


def test_rounds_go_on_in_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "p{n}"}}\n' for n in range(5)))
    plan = Plan(BenchOptions(SERVER, prompts=file, requests=2))
    asked = [[w.line.content for w in plan.stages(r, "A")[0].wishes if w.line] for r in range(3)]
    assert asked == [["p0", "p1"], ["p2", "p3"], ["p4", "p0"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', "line 2 is not JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2 is no object"),
        ('{"text": "a"}\n', "line 1 has no prompt; write an object with 'prompt'"),
        ('{"prompt": ""}\n', "line 1: 'prompt' must be a text"),
        ('{"messages": []}\n', "line 1: 'messages' must be a list of objects"),
        ('{"prompt": "a", "output_tokens": 0}\n', "line 1: 'output_tokens' is 0"),
        ('{"prompt": "a", "output_tokens": true}\n', "line 1: 'output_tokens' is True"),
        ("\n", "is empty"),
    ],
)
def test_bad_prompts_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(BenchError, match=r"prompts\.jsonl") as caught:
        read_prompts(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"input_length": 3}\n', "line 1: 'timestamp' is None"),
        ('{"timestamp": "x", "input_length": 3}\n', "line 1: 'timestamp' is 'x'"),
        ('{"timestamp": 1}\n', "line 1 has no prompt; write an object with 'timestamp'"),
        (
            '{"timestamp": 2, "input_length": 3}\n{"timestamp": 1, "input_length": 3}\n',
            "line 2: 'timestamp' is earlier",
        ),
    ],
)
def test_bad_traces_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(BenchError) as caught:
        read_trace(file, 1.0)
    assert message in str(caught.value)


def test_messages_need_the_chat_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n{"messages": [{"role": "user", "content": "hi"}]}\n')
    Plan(BenchOptions(SERVER, prompts=file))
    with pytest.raises(BenchError, match="request 2 of the file has 'messages'"):
        Plan(BenchOptions(SERVER, prompts=file, endpoint="completions"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        read_prompts(tmp_path / "none.jsonl")


def test_objectives() -> None:
    assert read_objectives(["ttft:200", "itl:50, e2el:9e3"]) == {
        "ttft": 200,
        "itl": 50,
        "e2el": 9000,
    }
    for pair in ("ttft", "ttft:x", "speed:3", "itl:-1", "tpot:inf"):
        with pytest.raises(BenchError, match="NAME:MILLISECONDS"):
            read_objectives([pair])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": (1.0,), "trace": Path("x")}, "--trace says when"),
        ({"rates": (0.0,)}, "--request-rate must be above 0"),
        ({"concurrencies": (0,)}, "--concurrency must be between 1"),
        ({"rates": (1.0, 2.0), "concurrencies": (1, 2)}, "not both"),
        ({"burstiness": 0.0}, "--burstiness"),
        ({"percentiles": (100.0,)}, "--percentiles"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        BenchOptions(SERVER, **options).check()


def test_numbers() -> None:
    assert read_numbers("1,2.5", "--x") == (1.0, 2.5)
    with pytest.raises(BenchError, match="--x 'a' is not a number"):
        read_numbers("a", "--x")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("localhost:8000", "http://localhost:8000/v1"),
        ("https://h/openai", "https://h/openai/v1"),
        ("https://h/api/v3", "https://h/api/v3"),
        ("https://h/v1beta", "https://h/v1beta"),
    ],
)
def test_base_urls(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://h", "http://", "http://h:99999", "http://h/v1?x=1"])
def test_no_base_urls(text: str) -> None:
    with pytest.raises(BenchError, match="no base URL"):
        base_url(text)


def test_prompts_of_a_wanted_length() -> None:
    costs = [1 + len(word) % 3 for word in WORDS]
    vocabulary = Vocabulary.counted(9, costs)
    cost = dict(zip(WORDS, costs, strict=True))
    for wanted in (12, 57, 400):
        for seed in range(20):
            words = vocabulary.prompt(wanted, Random(seed)).split()
            assert 9 + sum(cost[word] for word in words) == wanted
    assert len(vocabulary.prompt(3, Random(0)).split()) == 1


def test_prompts_of_a_fitted_length() -> None:
    vocabulary = Vocabulary.fitted([(16, 44), (112, 236)])
    assert vocabulary.frame == pytest.approx(12)
    assert len(vocabulary.prompt(112, Random(0)).split()) == pytest.approx(50, abs=1)
