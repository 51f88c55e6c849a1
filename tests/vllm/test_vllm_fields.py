"""scripts/vllm_fields.json, which docs/compatibility.md is written from, against vLLM itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from engine.vllm.compat import installed_version

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from compatibility import FIELDS, read_vllm

pytestmark = pytest.mark.usefixtures("needs_vllm")


def test_they_are_those_of_the_installed_request_classes() -> None:
    known = json.loads(FIELDS.read_text())
    if installed_version() != known["version"]:
        pytest.skip(f"the document is about vLLM {known['version']}")
    assert json.loads(read_vllm()) == known
