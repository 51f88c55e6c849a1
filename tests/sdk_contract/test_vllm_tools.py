"""Tool calls and reasoning on vLLM, as the OpenAI SDK sees them."""

from test_chat_reasoning import (
    test_a_format_holds_for_what_follows_the_thinking,  # noqa: F401
    test_forced_calls_follow_the_thinking,  # noqa: F401
    test_no_thinking_unless_asked_for,  # noqa: F401
    test_the_templates_own_variable_comes_first,  # noqa: F401
    test_thinking_is_asked_for_and_split_off,  # noqa: F401
)
from test_chat_tools import (
    bundled,  # noqa: F401
    test_a_call_of_the_models_own_will,  # noqa: F401
    test_a_named_function_is_called,  # noqa: F401
    test_a_streamed_call_is_the_same_with_its_name_first,  # noqa: F401
    test_arguments_that_are_cut_short_end_in_length,  # noqa: F401
    test_required_calls_whatever_the_model_would_say,  # noqa: F401
    test_small_talk_is_answered_in_words,  # noqa: F401
    test_strict_tools_are_enforced_in_the_midst_of_free_text,  # noqa: F401
    test_the_result_of_a_call_is_taken_up,  # noqa: F401
    test_tools_beside_a_format_give_one_or_the_other,  # noqa: F401
)
