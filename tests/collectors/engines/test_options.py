"""Options of engines that are unknown, wrong or another's are refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.engines import ENGINES, engine_class, make_engine
from schemas.failures import ConfigError

VLLM_REFUSES: list[tuple[dict[str, Any], str]] = [
    ({"extra": {"dtype": "float16"}}, "part of the model's identity"),
    ({"extra": {"gpu_memory_utilization": 0.95}}, "an option of its own"),  # else it would go over a placement's
    ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
]


@pytest.mark.parametrize("name", [name for name in ENGINES if engine_class(name).OPTIONS.model_fields])
def test_options_unknown_name_is_a_config_error_naming_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"'max_lenght' is unknown; known options: \w"):
        make_engine(name, {"max_lenght": 1})


def test_options_wrong_value_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'latency_s' is 'quick'"):
        make_engine("stub", {"latency_s": "quick"})


@pytest.mark.parametrize(("options", "said"), VLLM_REFUSES)
def test_vllm_options_that_go_around_others_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_engine("vllm", options)
