from __future__ import annotations

import pytest
from structured_walks import Walker, make_tokenizer


@pytest.fixture(scope="session")
def walker() -> Walker:
    return Walker(make_tokenizer())
