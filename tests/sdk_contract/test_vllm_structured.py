"""Structured output on vLLM, as the OpenAI SDK sees it."""

from test_chat_structured import (
    bundled,  # noqa: F401
    server,  # noqa: F401
    test_any_object,  # noqa: F401
    test_every_choice_is_valid,  # noqa: F401
    test_json_after_a_schema,  # noqa: F401
    test_logprobs_and_usage_beside_a_constraint,  # noqa: F401
    test_older_names_of_vllm,  # noqa: F401
    test_options_that_leave_no_token_are_the_callers_fault,  # noqa: F401
    test_structured_outputs,  # noqa: F401
    test_the_parsing_helper_of_the_sdk,  # noqa: F401
    test_what_cannot_be_enforced_is_a_400,  # noqa: F401
)
