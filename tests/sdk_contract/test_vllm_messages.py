"""Messages on vLLM, as Anthropic's SDK sees them."""

from test_messages_api import (
    bundled,  # noqa: F401
    claude,  # noqa: F401
    test_a_schema_holds_the_answer,  # noqa: F401
    test_a_stop_sequence_is_named,  # noqa: F401
    test_a_tool_is_used_and_its_result_taken,  # noqa: F401
    test_a_tool_use_can_be_forced,  # noqa: F401
    test_a_tool_use_is_streamed_as_json,  # noqa: F401
    test_an_answer_in_one_piece,  # noqa: F401
    test_more_tokens_than_the_context_holds_fill_it,  # noqa: F401
    test_raw_events_have_names,  # noqa: F401
    test_streams_say_the_same,  # noqa: F401
    test_the_asynchronous_client,  # noqa: F401
    test_the_templates_mark_of_thinking_is_counted,  # noqa: F401
    test_thinking_is_shown_when_asked_for,  # noqa: F401
    test_tokens_are_counted_as_they_are_used,  # noqa: F401
)
