"""The playground as a person uses it, in a real Chromium against a real server."""

import json
import re
import signal
from collections.abc import Iterator

import pytest
from playground_page import PHONE, Tabs, chromium
from playwright.sync_api import Browser, expect
from server_process import NewServer, ServerProcess

FIRST = "planted-secret-key-number-one"
SLOW = {"itl_s": 0.05}
HOSTILE = (
    "<img src=x onerror=\"window.pwned='img'\"><script>window.pwned='script'</script>\n"
    "```html\n<svg onload=\"window.pwned='svg'\"></svg>\n```\n"
    "[link](javascript:window.pwned='link') &lt;b&gt; </div><iframe srcdoc='<script></script>'>"
)


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


@pytest.fixture
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")


@pytest.fixture
def slow(shared_server: NewServer) -> ServerProcess:
    return shared_server(options=SLOW)


def in_flight(server: ServerProcess) -> float:
    return server.metric("gateway_requests_in_flight") + server.metric("vllm:num_requests_running")


def test_a_conversation_with_the_bundled_model(tabs: Tabs, bundled: ServerProcess) -> None:
    tab = tabs.new(bundled.url).open_ready()
    assert tab.page.locator("#model option").all_inner_texts() == ["tiny-chat", "bundled"]
    tab.page.fill("#temperature", "0")
    tab.ask("What is the capital of France?")
    assert "Paris" in tab.answer()
    stats = tab.page.locator("#stats").inner_text()
    assert re.fullmatch(r"TTFT \d+ ms · (over )?[\d.]+ tok/s · \d+ tokens · prompt \d+", stats), (
        stats
    )
    tab.ask("What is the capital of Italy?")
    assert "Rome" in tab.answer()
    assert tab.page.locator(".turn").count() == 4
    expect(tab.page.locator("#input")).to_be_focused()
    expect(tab.page.locator("#announce")).to_contain_text("Answered")
    tab.page.click("#new-chat")
    expect(tab.page.locator("#empty")).to_be_visible()
    assert tab.page.locator(".turn").count() == 0


def test_keys_and_system_prompt(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url).open_ready()
    sent = tab.stream_back('data: {"choices":[{"index":0,"delta":{"content":"ok"}}]}\n\n' + DONE)
    tab.page.fill("#system", "Answer in verse.")
    tab.page.fill("#top_k", "7")
    tab.page.fill("#max_tokens", "12")
    tab.page.select_option("#reasoning", "off")
    tab.page.focus("#input")
    tab.page.keyboard.type("one")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("two")
    tab.page.keyboard.press("Enter")
    assert tab.answer() == "ok"
    body = sent[0]
    assert body["messages"] == [
        {"role": "system", "content": "Answer in verse."},
        {"role": "user", "content": "one\ntwo"},
    ]
    assert (body["top_k"], body["max_tokens"], body["stream"]) == (7, 12, True)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "temperature" not in body


def test_a_setting_out_of_bounds_is_named(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url, viewport={"width": 800, "height": 600}).open_ready()
    expect(tab.page.locator("#settings")).to_be_hidden()
    tab.page.click("#settings-toggle")
    tab.page.fill("#temperature", "9")
    tab.page.click("#settings-toggle")
    tab.ask("Hello")
    expect(tab.page.locator("#stats")).to_contain_text("Temperature")
    expect(tab.page.locator("#temperature")).to_be_focused()
    tab.page.fill("#temperature", "")
    tab.page.fill("#tools", "[{]")
    tab.page.click("#retry")
    expect(tab.page.locator("#stats")).to_contain_text("not valid JSON")
    expect(tab.page.locator("#tools")).to_be_focused()
    tab.page.fill("#tools", "")
    tab.page.click("#retry")
    assert tab.answer()


def test_stop_by_key_and_by_button(tabs: Tabs, slow: ServerProcess) -> None:
    tab = tabs.new(slow.url).open_ready()
    for stop in (
        lambda: tab.page.keyboard.press("Escape"),
        lambda: tab.page.click("#stop"),
    ):
        tab.ask("Tell me everything")
        expect(tab.page.locator(".turn.assistant .text").last).not_to_be_empty()
        expect(tab.page.locator("#stats")).to_contain_text(re.compile(r"TTFT \d+ ms · .* ~\d+"))
        assert in_flight(slow) >= 1
        stop()
        text = tab.answer()
        slow.wait_for(lambda: in_flight(slow) == 0, "the engine to be free", 10)
        assert text
        expect(tab.page.locator(".turn .note").last).to_have_text("Stopped.")
        expect(tab.page.locator("#input")).to_be_focused()
    assert tab.page.locator(".turn .error").count() == 0


def test_a_new_chat_ends_the_old_answer(tabs: Tabs, slow: ServerProcess) -> None:
    tab = tabs.new(slow.url).open_ready()
    tab.ask("Tell me everything")
    expect(tab.page.locator(".turn.assistant .text").last).not_to_be_empty()
    tab.page.click("#new-chat")
    slow.wait_for(lambda: in_flight(slow) == 0, "the engine to be free", 10)
    assert tab.page.locator(".turn").count() == 0
    expect(tab.page.locator("#send")).to_be_visible()
    expect(tab.page.locator("#stats")).to_be_empty()


def test_retry_answers_the_same_message_again(tabs: Tabs, bundled: ServerProcess) -> None:
    tab = tabs.new(bundled.url).open_ready()
    tab.page.fill("#temperature", "0")
    tab.ask("What is the capital of France?")
    before = tab.answer()
    with tab.page.expect_request("**/v1/chat/completions") as again:
        tab.page.click("#retry")
    assert [m["role"] for m in again.value.post_data_json["messages"]] == ["user"]
    assert tab.answer() == before
    assert tab.page.locator(".turn").count() == 2


def test_errors_show_message_and_request_id(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url).open_ready()
    tab.page.evaluate("document.querySelector('#model').add(new Option('ghost', 'ghost'))")
    tab.page.select_option("#model", "ghost")
    tab.ask("Hello")
    tab.expect_error("'ghost' does not exist", r"HTTP 404 · model_not_found · request id req_\w+")
    tab.page.select_option("#model", index=0)
    tab.page.click("#retry")
    assert tab.answer()
    assert tab.page.locator(".turn .error").count() == 0


def test_a_refused_message_does_not_come_again(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url).open_ready()
    tab.ask("x" * 20_000)
    tab.expect_error("HTTP 400")
    with tab.page.expect_request("**/v1/chat/completions") as next_one:
        tab.ask("short")
    assert next_one.value.post_data_json["messages"] == [{"role": "user", "content": "short"}]
    assert tab.answer()


def test_errors_in_the_middle_keep_what_was_said(tabs: Tabs, new_server: NewServer) -> None:
    server = new_server(options={"die_after_tokens": 20, "itl_s": 0.02}, RESTART_DELAY_S="3600")
    tab = tabs.new(server.wait_ready().url).open_ready()
    tab.ask("Hello")
    tab.expect_error("stopped working|not available", r"request id req_\w+")
    assert tab.answer()


def test_a_draining_and_a_gone_server(tabs: Tabs, new_server: NewServer) -> None:
    server = new_server(options=SLOW, DRAIN_TIMEOUT_S="600").wait_ready()
    streaming, other = tabs.new(server.url).open_ready(), tabs.new(server.url).open_ready()
    streaming.ask("Tell me everything")
    expect(streaming.page.locator(".turn.assistant .text").last).not_to_be_empty()
    server.signal(signal.SIGTERM)
    server.wait_for(lambda: "shutting down" in server.err.read_text(), "the drain")
    other.ask("Hello")
    other.expect_error("HTTP 503 · server_draining · request id")
    server.kill()
    streaming.expect_error("connection (broke|ended) before the answer was complete")
    other.page.click("#retry")
    other.expect_error("server cannot be reached")
    for tab in (streaming, other):
        tab.problems[:] = [text for text in tab.problems if "net::ERR" not in text]


def test_model_output_is_never_markup(tabs: Tabs, shared_server: NewServer) -> None:
    server = shared_server(options={"text": HOSTILE})
    tab = tabs.new(server.url).open_ready()
    tab.ask(HOSTILE)
    assert "onerror" in tab.answer()
    shown = tab.page.locator(".turn.assistant .text").last.text_content() or ""
    assert shown == HOSTILE.replace("```html\n", "").replace("```\n", "")
    assert tab.page.locator(".turn.assistant pre").inner_text().startswith("<svg onload")
    live = tab.page.locator("#log").locator("img, script, svg, iframe, a, b")
    assert live.count() == 0
    assert tab.page.evaluate("window.pwned") is None


def test_tool_calls_and_reasoning_are_text_too(tabs: Tabs, server: ServerProcess) -> None:
    tab = tabs.new(server.url).open_ready()
    first = events(
        {"role": "assistant", "reasoning_content": "<b>Rome"},
        {"reasoning": " or Paris?</b>"},
        call(0, id="call_1", name="get_<i>weather</i>", arguments=""),
        call(0, arguments='{"city": '),
        call(0, arguments='"<img src=x onerror=window.pwned=1>"}'),
        call(1, id="call_2", name="get_time", arguments="{}"),
    )
    sent = tab.stream_back(first, events({"content": "Sunny."}))
    tools = [{"type": "function", "function": {"name": "get_time", "parameters": {}}}]
    tab.page.fill("#tools", json.dumps(tools))
    tab.ask("Weather?")
    tab.wait_idle()
    expect(tab.page.locator("summary")).to_have_text("Reasoning")
    expect(tab.page.locator(".reasoning")).to_have_text("<b>Rome or Paris?</b>")
    expect(tab.page.locator(".tool .name").first).to_have_text("Calls get_<i>weather</i>")
    expect(tab.page.locator(".tool pre").first).to_contain_text("<img src=x onerror")
    fields = tab.page.locator(".tool input")
    expect(fields.first).to_be_focused()
    fields.first.fill("sun")
    fields.last.fill("noon")
    fields.last.press("Enter")
    expect(tab.page.locator(".turn.assistant .text:not(.reasoning)").last).to_have_text("Sunny.")
    assert sent[0]["tools"] == tools
    results = sent[1]["messages"][-2:]
    assert [m["tool_call_id"] for m in results] == ["call_1", "call_2"]
    assert [m["content"] for m in results] == ["sun", "noon"]
    made = sent[1]["messages"][1]["tool_calls"][0]
    assert json.loads(made["function"]["arguments"])["city"].startswith("<img")
    assert tab.page.evaluate("window.pwned") is None


def test_the_key_is_asked_for_and_stays_in_the_tab(tabs: Tabs, shared_server: NewServer) -> None:
    server = shared_server(options={"text": "Hello, stranger."}, API_KEYS=FIRST)
    context = tabs.context()
    tab = tabs.new(server.url, context).open()
    dialog = tab.page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    expect(tab.page.locator("#key")).to_be_focused()
    tab.page.keyboard.type("wrong-key")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#key-problem")).to_have_text("Incorrect API key provided.")
    tab.page.keyboard.press("Escape")
    tab.ask("Hello")
    tab.expect_error("HTTP 401 · invalid_api_key")
    expect(dialog).to_be_visible()
    tab.page.fill("#key", f"  {FIRST} ")
    tab.page.press("#key", "Enter")
    expect(tab.page.locator(".turn.assistant .text").last).to_have_text("Hello, stranger.")
    expect(tab.page.locator(".turn .error")).to_have_count(0)
    expect(dialog).to_be_hidden()
    tab.open_ready()
    assert context.cookies() == []
    assert tab.page.evaluate("localStorage.length") == 0
    assert tab.page.evaluate("Object.values(sessionStorage)") == [FIRST]
    expect(tabs.new(server.url, context).open().page.locator("#key-dialog")).to_be_visible()
    tab.page.click("#key-open")
    tab.page.click("#key-forget")
    expect(dialog).to_be_visible()
    assert tab.page.evaluate("sessionStorage.length") == 0
    assert FIRST not in server.logs()


def test_a_loading_server_says_how_far_it_is(tabs: Tabs, new_server: NewServer) -> None:
    server = new_server(options={"start_s": 4.0, "text": "ready now"}).wait_bound()
    tab = tabs.new(server.url).open()
    expect(tab.page.locator("#stats")).to_contain_text(
        re.compile(r"The model is loading: pretending to load, \d+ %")
    )
    expect(tab.page.locator("#model option")).not_to_have_count(0)
    tab.ask("Hello")
    assert tab.answer() == "ready now"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_phone_shows_it_without_scrolling_sideways(
    tabs: Tabs, shared_server: NewServer, path: str
) -> None:
    server = shared_server(options={"text": f"{'long' * 200}\n```\n{'code ' * 100}\n```\nend"})
    tab = tabs.new(server.url, **PHONE).open(path)
    if path == "/docs":
        tab.page.locator(".operation summary").last.click()
        tab.page.locator(".operation .nested summary").first.click()
    else:
        tab.ask("word" * 100)
        assert tab.answer().endswith("end")
        tab.page.tap("#settings-toggle")
        expect(tab.page.locator("#system")).to_be_visible()
        for button in ("#send", "#settings-toggle", "#new-chat"):
            box = tab.page.locator(button).bounding_box()
            assert box is not None
            assert box["height"] >= 40
            assert box["x"] + box["width"] <= 360
    assert not tab.scrolls_sideways()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(tabs: Tabs, server: ServerProcess, scheme: str) -> None:
    tab = tabs.new(server.url, color_scheme=scheme).open_ready()
    tab.ask("Hello")
    tab.answer()
    tab.page.evaluate("document.querySelector('#model').add(new Option('ghost', 'ghost'))")
    tab.page.select_option("#model", "ghost")
    tab.ask("Hello")
    tab.wait_idle()
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.2) == (scheme == "dark")
    parts = (".turn.user .text", ".turn.assistant .text", ".who", "#stats", ".turn .error", "#send")
    for part in (*parts, "#settings label", "#system", ".model span", "nav a"):
        text, behind = tab.page.locator(part).first.evaluate(COLOURS)
        low, high = sorted((luminance(text), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (part, text, behind)


# The colour of a node's text, and that of the first opaque thing behind it.
COLOURS = """(node) => {
  const text = getComputedStyle(node).color;
  let behind = node;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
    behind = behind.parentElement;
  return [text, getComputedStyle(behind).backgroundColor];
}"""
DONE = "data: [DONE]\n\n"


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def call(index: int, *, arguments: str, **start: str) -> dict[str, object]:
    """A delta with a piece of a tool call."""
    function = {"arguments": arguments, **({"name": start["name"]} if start else {})}
    head = {"id": start["id"], "type": "function"} if start else {}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def events(*deltas: dict[str, object]) -> str:
    """An event stream of these deltas, with a comment between."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return ": ping\n\n".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + DONE
