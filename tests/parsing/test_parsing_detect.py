"""Formats told from chat templates."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.chat.parsing import Formats, detect

QWEN3 = """{%- if tools %}{{- "For each function call, return a json object within <tool_call>
</tool_call> XML tags" }}{%- endif %}{%- if '</think>' in content %}{%- endif %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}"""
QWEN25 = '{%- if tools %}<tool_call>\n{"name": <function-name>}\n</tool_call>{% endif %}'
CODER = "{%- if tools %}<tool_call>\n<function=x>\n<parameter=y>\n</parameter></tool_call>"
LLAMA31 = """{{- "<|start_header_id|>" }}{%- if tools is not none %}{{- 'Respond in the format
{"name": function name, "parameters": dictionary}' }}{{- "<|python_tag|>" }}"""
LLAMA32 = """<|start_header_id|>{% if tools %}{"name": function name, "parameters": {}}'"""
PYTHONIC = "<|start_header_id|>{% if tools %}[func_name1(params_name1=params_value1), func_name2("
MISTRAL = "{%- if message.tool_calls %}{{- '[TOOL_CALLS] [' }}{% endif %}"
MAGISTRAL = "[THINK]...[/THINK]{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}"
GRANITE31 = "{%- if tools %}respond with <|tool_call|> followed by a JSON list of tools used."
GRANITE32 = GRANITE31 + " Write 'Here is my thought process:' first and 'Here is my response:'"
GRANITE4 = "{%- if tools %}return a json object within <tool_call></tool_call> XML tags"
PHI4 = "{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}"
R1 = "{{'<｜tool▁call▁begin｜>' + '\\n```json\\n'}}{{'<｜Assistant｜><think>\\n'}}"
V31 = "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + '<｜tool▁sep｜>'}}{{'</think>'}}"
GPT_OSS = "<|start|>assistant<|channel|>analysis<|message|> tools commentary"
LLAMA4 = "{{- '<|python_start|>' }}{{- '<|python_end|>' }}tools"
LFM2 = "List of tools: <|tool_list_start|>["
GLM = "{% if tools %}<tool_call>{name}<arg_key>k</arg_key></tool_call><think></think>"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "tool", "reasoning"),
    [
        (QWEN3, "hermes", "qwen3"),
        (QWEN25, "hermes", None),
        (CODER, "qwen3_xml", None),
        (LLAMA31, "llama3_json", None),
        (LLAMA32, "llama3_json", None),
        (PYTHONIC, "pythonic", None),
        (MISTRAL, "mistral", None),
        (MAGISTRAL, "mistral", "mistral"),
        (GRANITE31, "granite", None),
        (GRANITE32, "granite", "granite"),
        (GRANITE4, "hermes", None),
        (PHI4, "phi4_mini_json", None),
        (R1, "deepseek_v3", "deepseek_r1"),
        (V31, "deepseek_v31", "qwen3"),
        (GPT_OSS, "openai", "openai_gptoss"),
        (LLAMA4, "llama4_pythonic", None),
        (LFM2, "lfm2", None),
        (GLM, None, "qwen3"),
        (CHATML, None, None),
        (None, None, None),
    ],
)
def test_from_the_template(template: str | None, tool: str | None, reasoning: str | None) -> None:
    assert detect(template) == Formats(tool, reasoning)


def test_the_name_is_the_last_resort() -> None:
    assert detect(None, model="mistralai/Mistral-7B-Instruct-v0.3").tool == "mistral"
    assert detect("tools: {{ tools }}", architecture="GptOssForCausalLM").tool == "openai"
    assert detect(QWEN25, model="mistralai/x").tool == "hermes"
    # A template that shows no tools to the model: whatever its name, it will not call any.
    assert detect(CHATML, model="Qwen/Qwen2.5-0.5B-Instruct").tool is None
    assert detect(None, special_tokens=["[TOOL_CALLS]", "[THINK]"]) == Formats("mistral", "mistral")


def test_settings_override() -> None:
    assert detect(QWEN3, tool="pythonic") == Formats("pythonic", "qwen3")
    assert detect(QWEN3, tool="none", reasoning="none") == Formats()
    assert detect(CHATML, reasoning="deepseek_r1") == Formats(None, "deepseek_r1")
    with pytest.raises(ValueError, match=r"unknown tool parser 'hermez'; known: .*hermes.*none"):
        detect(QWEN3, tool="hermez")
    with pytest.raises(ValueError, match=r"unknown reasoning parser 'x'; known: .*qwen3"):
        detect(QWEN3, reasoning="x")


def test_the_package_imports_no_engine() -> None:
    code = (
        "import sys, gateway.chat.parsing;"
        "heavy = {'torch', 'vllm', 'transformers', 'tokenizers'};"
        "print(*heavy & {name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
