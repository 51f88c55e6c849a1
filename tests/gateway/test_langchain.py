"""LangChain's standard suite for chat models: ``ChatOpenAI`` against the gateway.

What the API enforces (forced tools, schemas, stops) has to pass. What depends on the choice of
a model of a few million parameters may fail: ``BEYOND_THE_MODEL`` says why. Skipped are inputs
that the bundled model cannot take: images, audio, PDF, and Anthropic's blocks in OpenAI's API.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from server_process import NewServer

ENDLESS = "the model never closes a free string in a call or in JSON text"
EXTRA = "the model adds arguments, which a tool that is not strict allows"
BEYOND_THE_MODEL = {
    "test_bind_runnables_as_tools": ENDLESS,
    "test_tool_calling_with_no_arguments": ENDLESS,
    "test_json_mode": ENDLESS,
    "test_structured_output_pydantic_2_v1": ENDLESS,
    "test_tool_calling": EXTRA,
    "test_tool_calling_async": EXTRA,
    "test_agent_loop": "the model would have to choose the right tool for a question",
    "test_unicode_tool_call_integration": "the model would have to copy Chinese characters",
}


@pytest.mark.filterwarnings(
    # LangChain's own: how it stores parsed answers, and that it takes another method for
    # pydantic's older models.
    "ignore:Pydantic serializer warnings:UserWarning",
    "ignore:Received a Pydantic BaseModel V1 schema:UserWarning",
)
class TestChatOpenAI(ChatModelIntegrationTests):
    """The suite itself."""

    base_url: ClassVar[str]

    @pytest.fixture(autouse=True)
    def served(self, shared_server: NewServer, request: pytest.FixtureRequest) -> None:
        """A server of two models, and the marks of tests that ask too much of them."""
        other = json.dumps([{"model_name": "bundled", "served_model_name": "other"}])
        server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1", MODELS=other)
        type(self).base_url = f"{server.url}/v1"
        reason = BEYOND_THE_MODEL.get(request.function.__name__)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=False))

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, served: None) -> BaseChatModel:
        """The model of each test; made late, since the server's port is known late."""
        extra = getattr(request, "param", None) or {}
        return ChatOpenAI(**self.standard_chat_model_params, **self.chat_model_params, **extra)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 200, "timeout": 120, "max_retries": 0}

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "tiny-chat",
            "base_url": self.base_url,
            "api_key": "x",
            "stream_usage": True,
            # LangChain keeps connections for all event loops alike, and each test has its own.
            "default_headers": {"Connection": "close"},
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str | None:
        return "other"
