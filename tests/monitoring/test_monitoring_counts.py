"""Answers and refusals are counted once, and nobody can make the metrics grow without bound."""

from __future__ import annotations

from gateway.telemetry.answers import MOST_KEYS, OTHER_KEYS, Answers

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(answers: Answers) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in answers.collect()
        for sample in family.samples
    }


def test_answers_by_status_and_refusals_by_key() -> None:
    answers = Answers("nobody")
    for key, status in (("a", 200), ("a", 200), ("a", 429), ("b", 403), ("nobody", 401), ("a", 0)):
        answers.note(key, status)
    assert samples(answers) == {
        ("gateway_http_responses_total", ("200",)): 2,
        ("gateway_http_responses_total", ("429",)): 1,
        ("gateway_http_responses_total", ("403",)): 1,
        ("gateway_http_responses_total", ("401",)): 1,
        ("gateway_http_responses_total", ("none",)): 1,
        ("gateway_key_refusals_total", ("a", "429")): 1,
        ("gateway_key_refusals_total", ("b", "403")): 1,
        ("gateway_key_refusals_total", ("nobody", "401")): 1,
        ("gateway_key_refusals_total", ("nobody", "403")): 0,
        ("gateway_key_refusals_total", ("nobody", "429")): 0,
    }


def test_keys_beyond_the_bound_are_counted_together() -> None:
    answers = Answers("nobody")
    for number in range(MOST_KEYS + 10):
        answers.note(f"key_{number}", 429)
        answers.note(f"key_{number}", 403)
    found = samples(answers)
    series = [labels for name, labels in found if name == "gateway_key_refusals_total"]
    assert len({key for key, _ in series}) == MOST_KEYS + 1
    total = 2 * (MOST_KEYS + 10)
    assert sum(found["gateway_key_refusals_total", labels] for labels in series) == total
    assert found["gateway_key_refusals_total", (OTHER_KEYS, "429")] == 11
    # One that is known goes on to be counted under its own name.
    answers.note("key_0", 429)
    assert samples(answers)["gateway_key_refusals_total", ("key_0", "429")] == 2
