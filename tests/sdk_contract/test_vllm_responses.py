"""The Responses API on vLLM, as the OpenAI SDK sees it."""

from test_responses_api import (
    bundled,  # noqa: F401
    sdk,  # noqa: F401
    test_a_background_stream_outlives_its_client,  # noqa: F401
    test_a_conversation_goes_on_from_a_stored_response,  # noqa: F401
    test_a_function_is_called_and_its_output_taken,  # noqa: F401
    test_a_stream_says_the_same_with_its_events_in_order,  # noqa: F401
    test_a_streamed_call_has_its_events,  # noqa: F401
    test_an_answer_cut_short_is_incomplete,  # noqa: F401
    test_an_answer_is_complete,  # noqa: F401
    test_background_work_is_cancelled,  # noqa: F401
    test_background_work_is_polled,  # noqa: F401
    test_logprobs_spell_the_text,  # noqa: F401
    test_parse_gives_a_typed_answer,  # noqa: F401
    test_the_asynchronous_client_streams_too,  # noqa: F401
)
