"""What the playground's copy buttons give runs elsewhere, and the documentation page."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from encoder_checkpoints import word_piece
from playground_page import Tab, Tabs, chromium
from playwright.sync_api import Browser, expect
from server_process import PATIENCE_S, NewServer, ServerProcess
from table_encoder import write_table_encoder

KEY = "planted-secret-key-number-one"
# All that a shell or a Python string could trip over.
AWKWARD = (
    'It\'s "quoted", $HOME `id` \\n \\\\ {x} %s\tand\nmore: 🦊 é '
    "\u2028 \x01 </script> $(false) '''"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": [None, True, 1.5]}}},
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Tabs]:
    opened = Tabs(browser)
    yield opened
    try:
        opened.check()
    finally:
        opened.close()


def with_clipboard(tabs: Tabs, server: ServerProcess) -> Tab:
    context = tabs.context()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    return tabs.new(server.url, context)


def copied(tab: Tab, button: str) -> str:
    tab.page.evaluate("navigator.clipboard.writeText('')")
    tab.page.click(button)
    expect(tab.page.locator("#stats")).to_have_text("Copied.")
    text = tab.page.evaluate("navigator.clipboard.readText()")
    assert isinstance(text, str)
    return text


def run(command: list[str], folder: Path, **environment: str) -> str:
    """The command's output, run in an empty environment but for what is given."""
    shown = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr.decode()
    return shown.stdout.decode()


def text_of(stream: str) -> str:
    """The content of a stream of chunks as curl prints it."""
    assert stream.rstrip().endswith("data: [DONE]"), stream
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def test_the_copied_commands_give_the_same_answer(
    tabs: Tabs, shared_server: NewServer, tmp_path: Path
) -> None:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    tab = with_clipboard(tabs, server).open_ready()
    tab.page.fill("#temperature", "0")
    tab.page.fill("#top_k", "5")
    tab.page.fill("#seed", "-3")
    tab.page.fill("#max_tokens", "40")
    tab.ask("What is the capital of France?")
    answer = tab.answer()
    assert "Paris" in answer
    curl = copied(tab, "#copy-curl")
    assert "Authorization" not in curl
    assert text_of(run(["bash", "-c", curl], tmp_path)) == answer
    python = copied(tab, "#copy-python")
    assert run([sys.executable, "-c", python], tmp_path).strip() == answer


def test_for_an_embedding_model_it_is_a_request_for_embeddings(
    tabs: Tabs, shared_server: NewServer, tmp_path: Path
) -> None:
    encoder = write_table_encoder(
        tmp_path / "table", word_piece(), vocabulary=300, dimension=4, longest=64
    )
    embedder = {"model_name": str(encoder), "served_model_name": "embedder", "engine": "onnx"}
    server = shared_server(options={"text": "Noted."}, MODELS=json.dumps([embedder]))
    tab = with_clipboard(tabs, server).open_ready()
    tab.page.select_option("#model", "embedder")
    tab.page.fill("#input", "it's a fox")
    asked = {"model": "embedder", "input": ["it's a fox"]}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=asked, timeout=PATIENCE_S).json()
    vector = answer["data"][0]["embedding"]
    printed = json.loads(run(["bash", "-c", copied(tab, "#copy-curl")], tmp_path))
    assert printed["data"][0]["embedding"] == vector
    python = run([sys.executable, "-c", copied(tab, "#copy-python")], tmp_path)
    assert json.loads(python) == pytest.approx(vector, abs=1e-6)
    tab.page.select_option("#model", index=0)
    assert "/v1/chat/completions" in copied(tab, "#copy-curl")


def test_nothing_awkward_is_changed_on_the_way(
    tabs: Tabs, shared_server: NewServer, tmp_path: Path
) -> None:
    server = shared_server(options={"text": "Noted."}, API_KEYS=KEY)
    tab = with_clipboard(tabs, server).open()
    tab.page.fill("#key", KEY)
    tab.page.press("#key", "Enter")
    expect(tab.page.locator("#model option").first).to_be_attached()
    tab.page.fill("#system", AWKWARD)
    tab.page.fill("#tools", json.dumps([TOOL]))
    tab.page.fill("#input", AWKWARD)
    curl = copied(tab, "#copy-curl")
    python = copied(tab, "#copy-python")
    for snippet in (curl, python):
        assert "OPENAI_API_KEY" in snippet
        assert KEY not in snippet
    # What arrives: curl prints its own body when echo stands in for it, Python shows its call.
    printed = run(
        ["bash", "-c", 'curl() { printf "%s" "${@: -1}"; }\n' + curl], tmp_path, OPENAI_API_KEY=KEY
    )
    body = json.loads(printed)
    assert body["messages"][-1] == {"role": "user", "content": AWKWARD}
    assert body["messages"][0]["content"] == AWKWARD.strip()
    assert body["tools"] == [TOOL]
    call = python.partition("for chunk in")[0].replace("client.chat.completions.create(", "dict(")
    shown_call = f"{call}\nimport json\nprint(json.dumps(stream))"
    sent = json.loads(run([sys.executable, "-c", shown_call], tmp_path, OPENAI_API_KEY=KEY))
    assert sent["messages"] == body["messages"]
    assert sent["tools"] == [TOOL]
    # The fake engine's chat template knows no tools.
    tab.page.fill("#tools", "")
    curl = copied(tab, "#copy-curl")
    assert text_of(run(["bash", "-c", curl], tmp_path, OPENAI_API_KEY=KEY)) == "Noted."
    python = copied(tab, "#copy-python")
    shown = run([sys.executable, "-c", python], tmp_path, OPENAI_API_KEY=KEY)
    assert shown.strip() == "Noted."


def test_without_the_clipboard_api_it_copies_all_the_same(
    tabs: Tabs, server: ServerProcess
) -> None:
    tab = tabs.new(server.url)
    tab.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    tab.open_ready()
    tab.page.click("#copy-curl")
    expect(tab.page.locator("#stats")).to_have_text("Copied.")
    tab.page.focus("#input")
    tab.page.keyboard.press("Control+V")
    assert tab.page.locator("#input").input_value().startswith(f"curl -sN '{server.url}/v1/chat/")


def test_where_copying_is_refused_the_text_is_shown(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url)
    tab.page.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        "Document.prototype.execCommand = () => false;"
    )
    tab.open_ready()
    tab.page.click("#copy-python")
    expect(tab.page.locator("#snippet-dialog")).to_be_visible()
    assert "from openai import OpenAI" in tab.page.locator("#snippet").input_value()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#snippet-dialog")).to_be_hidden()


def test_the_documentation_lists_and_tries_every_operation(
    tabs: Tabs, shared_server: NewServer
) -> None:
    server = shared_server(options={"text": "Noted."}, API_KEYS=KEY)
    tab = tabs.new(server.url).open("/docs")
    expect(tab.page.locator("#status")).to_have_text("This server asks for an API key.")
    tab.page.fill("#key", KEY)
    tab.page.press("#key", "Enter")
    expect(tab.page.locator(".operation").first).to_be_visible()
    headers = {"x-api-key": KEY}
    schema = tab.page.request.get(f"{server.url}/openapi.json", headers=headers).json()
    listed = tab.page.locator(".operation > summary .path").all_inner_texts()
    assert sorted(set(listed)) == sorted(schema["paths"])
    assert len(listed) == sum(len(methods) for methods in schema["paths"].values())
    chat = tab.page.locator("#create_chat_completion")
    chat.locator("summary").first.click()
    expect(chat.locator(".fields td", has_text="temperature").first).to_be_visible()
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator(".try pre")).to_contain_text("HTTP 200")
    expect(chat.locator(".try pre")).to_contain_text('"content": "Noted."')
    for box in tab.page.locator(".operation:not([open]) > summary").all()[::-1]:
        box.click()
    expect(tab.page.locator(".operation .inside > form.try")).to_have_count(len(listed))
