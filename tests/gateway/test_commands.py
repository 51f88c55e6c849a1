"""The command line: settings, version, and the terminal chat against a real server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from server_process import SENTENCE, NewServer, ServerProcess
from typer.testing import CliRunner

from engine.base import EngineStartError
from gateway import __version__
from gateway.chat_client import ChatError, chat_in_terminal
from gateway.cli import app
from gateway.settings import Settings, SettingsError, load_settings
from gateway.settings_example import example

ROOT = Path(__file__).parents[2]


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


def test_version() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output == f"llm-gateway {__version__}\n"


def test_env_example_is_up_to_date() -> None:
    assert (ROOT / ".env.example").read_text() == example(), (
        "run: llm-gateway config example > .env.example"
    )
    assert CliRunner().invoke(app, ["config", "example"]).output == example()


def test_env_example_is_usable(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    lines = [line.removeprefix("# ") for line in example().splitlines()]
    settings_only = [line for line in lines if line.partition("=")[0].isupper()]
    assert len(settings_only) == len(Settings.model_fields)
    env_file.write_text("\n".join(settings_only))
    read, default = load_settings(_env_file=env_file), Settings(_env_file=None)
    for name in Settings.model_fields:
        # Empty and absent are the same to everything that reads a setting.
        assert (getattr(read, name) or None) == (getattr(default, name) or None), name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PORT=99999", "PORT: "),
        ("ENGINE=magic", "ENGINE: "),
        ("API_KEYS=short", "openssl rand -hex 32"),
        ("MAX_QUEUE=-1", "MAX_QUEUE: "),
        ("MAX_QEUE=1", "MAX_QEUE: no such setting"),
        ("HOST=0.0.0.0", "API_KEYS"),
        ("HOST=example.org", "API_KEYS"),
        ("SSE_PING_S=nan", "SSE_PING_S: "),
        ("ENGINE_OPTIONS=[1]", "ENGINE_OPTIONS: "),
    ],
)
def test_bad_settings_are_explained(tmp_path: Path, line: str, expected: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(line)
    with pytest.raises(SettingsError) as caught:
        load_settings(_env_file=env_file)
    assert expected in str(caught.value)
    assert "short" not in str(caught.value)


def test_chat_holds_a_conversation(server: ServerProcess) -> None:
    shown = run(
        *("chat", "--base-url", f"{server.url}/v1", "--system", "Be kind."),
        text="hello\n\n/reset\nagain\n/exit\nnever sent\n",
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count(SENTENCE) == 2
    assert shown.stdout.count("first token after ") == 2
    assert "tok/s" in shown.stdout
    assert "Chatting with tiny-chat" in shown.stdout


def test_chat_explains_what_is_wrong(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ChatError, match=r"no server answers at http://127\.0\.0\.1:9/v1; start one"
    ):
        chat_in_terminal("http://127.0.0.1:9/v1", None, None, None)
    lines = iter(["hello", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    chat_in_terminal(f"{server.url}/v1", "nope", None, None)
    assert "does not exist" in capsys.readouterr().out


def test_ctrl_c_stops_the_answer_and_not_the_program(shared_server: NewServer) -> None:
    server = shared_server(options={"itl_s": 0.05})
    chat = subprocess.Popen(
        [sys.executable, "-m", "gateway", "chat", "--base-url", f"{server.url}/v1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert chat.stdin is not None
    try:
        for _ in range(2):
            chat.stdin.write("hello\n")
            chat.stdin.flush()
            server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "a stream")
            time.sleep(0.5)
            chat.send_signal(signal.SIGINT)
            server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 0, "the stop")
            assert chat.poll() is None
        shown, _ = chat.communicate("/exit\n", timeout=60)
    finally:
        chat.kill()
    assert chat.returncode == 0
    assert shown.count(", stopped") == 2
    server.wait_for(lambda: server.metrics()["vllm:num_requests_running"] == 0, "the engine")


def test_model_eval_explains_a_start_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise EngineStartError("the model is not there")

    monkeypatch.setattr("gateway.evaluation.exam.run_evaluation", fail)
    shown = CliRunner().invoke(app, ["model", "eval"])
    assert shown.exit_code == 1
    assert "the model is not there" in shown.output
