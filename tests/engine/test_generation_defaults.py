"""What of a generation_config.json becomes a default."""

import math

from engine.generation_defaults import default_sampling


def test_recommended_values_are_taken() -> None:
    config = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "bos_token_id": 1}
    assert default_sampling(config) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


def test_no_sampling_means_greedy() -> None:
    assert default_sampling({"do_sample": False, "temperature": 0.6})["temperature"] == 0.0


def test_values_that_make_no_sense_are_left_out() -> None:
    config = {"temperature": -1, "top_p": 0, "top_k": True, "min_p": math.nan, "do_sample": None}
    assert default_sampling(config) == {}
