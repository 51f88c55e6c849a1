"""Tokens, predictions and batches on vLLM, and chat as everybody uses it."""

from test_batches import (
    _close_clients,  # noqa: F401
    test_answers_of_the_bundled_model,  # noqa: F401
)
from test_bundled_server import (
    test_logprobs_spell_the_answer,  # noqa: F401
    test_streamed_and_whole_answers_agree,  # noqa: F401
)
from test_predict import (
    bundled,  # noqa: F401
    test_one_bad_instance_fails_the_call,  # noqa: F401
    test_predictions_are_the_answers_in_order,  # noqa: F401
)
from test_tokens import (
    test_messages_count_what_a_chat_costs,  # noqa: F401
    tokenizer,  # noqa: F401
)
