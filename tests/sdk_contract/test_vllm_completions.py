"""Completions on vLLM, as the OpenAI SDK sees them."""

from test_completions import (
    bundled,  # noqa: F401
    sdk,  # noqa: F401
    test_async_client,  # noqa: F401
    test_bad_input_is_a_status,  # noqa: F401
    test_constraints_and_sampling_fields_are_those_of_chat,  # noqa: F401
    test_logprobs_agree_with_chat,  # noqa: F401
    test_offsets_add_up_to_the_text,  # noqa: F401
    test_prompts_and_choices_are_numbered_through,  # noqa: F401
    test_scoring_generates_nothing,  # noqa: F401
    test_token_ids_are_a_prompt_as_good_as_text,  # noqa: F401
    test_usage_so_far_on_every_chunk,  # noqa: F401
    test_whole_and_streamed_completions_agree,  # noqa: F401
)
