"""How a task samples: its temperature and seed, by the rules of lm-eval's vLLM backend.

Owns the defaults, and their part of a cell's identity. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

#: vLLM's own default, which lm-eval's vLLM backend leaves in force for `do_sample: true` without a temperature.
DEFAULT_TEMPERATURE = 1.0
#: The largest seed that vLLM and torch take.
_MOST = 2**63 - 1


def sampled_temperature(settings: Mapping[str, Any]) -> float:
    """The temperature of a task that samples. 0 decodes greedily. Raises ValueError or TypeError for a wrong one."""
    return float(settings.get("temperature", DEFAULT_TEMPERATURE))


def own_seed_of(settings: Mapping[str, Any]) -> int | None:
    """The seed that the task sets; None if it sets none, or vLLM's -1 for none.

    Raises ValueError or TypeError for a wrong one.
    """
    seed = settings.get("seed")
    if seed is None or seed == -1:
        return None
    if isinstance(seed, bool) or int(seed) != float(seed) or not 0 <= int(seed) < _MOST - 1000:
        raise ValueError(f"seed is {seed!r}")
    return int(seed)


def is_sampled(settings: Mapping[str, Any]) -> bool:
    """Whether answers are drawn, so that two of them may differ. So say settings that a run will refuse, too."""
    try:
        normal: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings)))
        return bool(normal["do_sample"] and sampled_temperature(normal))
    except (TypeError, ValueError):
        return True


def sampling_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of sampling that programs before schema 7 replaced by their own; empty for most tasks.

    They decoded greedily at `do_sample: true` without a temperature, and drew a seed of their own for every answer.
    Settings that a run will refuse give nothing.
    """
    try:
        normal: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings)))
        if not normal["do_sample"] or not (temperature := sampled_temperature(normal)):
            return {}
        seed = own_seed_of(normal)
    except (TypeError, ValueError):
        return {}
    implied = {} if "temperature" in normal else {"temperature": temperature}
    return implied if seed is None else {**implied, "seed": seed}


# ---- settings of a model's generation_config.json

#: Settings that change greedy answers, too -> the value without effect.
_PENALTIES = {"repetition_penalty": 1.0}
#: Settings of sampling that vLLM and transformers share.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
#: Settings of transformers that vLLM has not -> the value without effect.
_ONE_ENGINES = {"no_repeat_ngram_size": 0, "num_beams": 1, "typical_p": 1.0, "encoder_repetition_penalty": 1.0}


def added_by_model(file: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a generation_config.json that a task with `settings` leaves open, and that change its answers.

    The task decides whether it samples if it sets do_sample or a temperature; else the file does.
    """
    added = {k: file[k] for k, none in _PENALTIES.items() if k not in settings and file.get(k) not in (None, none)}
    decides = settings if {"do_sample", "temperature"} & settings.keys() else {"do_sample": file.get("do_sample")}
    if not (decides.get("do_sample") or (decides.get("do_sample") is None and decides.get("temperature"))):
        return added
    added |= {k: file[k] for k in _SAMPLING if k not in settings and file.get(k) is not None}
    return added if decides is settings else {**added, "do_sample": True}


def left_out(file: Mapping[str, Any], settings: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a generation_config.json that would change the task's answers and are not among those `added`."""
    other = {k: file[k] for k, none in _ONE_ENGINES.items() if k not in settings and file.get(k) not in (None, none)}
    return {k: v for k, v in {**added_by_model(file, settings), **other}.items() if k not in added}
