"""The settings of a table: the names of its columns, and values that hold for all its cells.

Owns their names, meanings and types, and so the text of ingest.py --help-table. Does not know how tables are read.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.failures import ConfigError

_NUMBER = ((int, float, type(None)), "a number or null")


@dataclass(frozen=True)
class Setting:
    #: An example of its value in a file.
    example: str
    what: str
    #: Types of a value that holds for all cells, and these in words. None: it names a column, or is a constant.
    kinds: tuple[tuple[type, ...], str] | None = None


#: Settings that every table needs.
NEEDED = ("model", "task", "score")
_ASKED = {
    "model": Setting("model_name", "the model that answered"),
    "task": Setting("{value: gsm8k}", "the task; {value: …} stands for the same in every row"),
    "score": Setting("correct", "number or boolean"),
    "key": Setting("question_id", "identifies the item; without it the prompt does, else the row's number in its file"),
}
#: Of a verdict.
VERDICT = {
    "prompt_tokens": Setting("in_tok", "tokens of the prompt"),
    "completion_tokens": Setting("out_tok", "tokens of the answer"),
    "cached_tokens": Setting("cached", "tokens of the prompt that the host had cached"),
    "total_tokens": Setting(
        "all_tok", "prompt and answer: counts that do not add up to it are unknown; alone it gives none"
    ),
    "usd": Setting("cost", "cost of the call in USD, as the source states it"),
    "latency_s": Setting("seconds", "from request to end of answer"),
    "latency_ms": Setting("milliseconds", "the same in milliseconds; give one of the two"),
    "response": Setting("answer", "the text of the answer"),
    "finish_reason": Setting("why", "why the answer ended: stop; length or max_tokens: cut off"),
    "filter": Setting("filter", "which of several readings of one answer this is"),
    "repeat": Setting("trial", "0: the verdict over all repeats of an item; from 1: one of them alone"),
}
#: Of an item.
ITEM = {
    "prompt": Setting("question", "the question; it joins items to those of other sources"),
    "choices": Setting("options", "a list of texts, or one as JSON"),
    "target": Setting("gold", "the right answer"),
    "subject": Setting("category", "the item's own subject"),
}
#: Of all cells.
CELL = {
    "metric": Setting("acc", "name of the score; default: score", ((str,), "a name")),
    "low": Setting("0", "least that a score can be; null: no limit; default: 0", _NUMBER),
    "high": Setting("1", "most that a score can be; null: no limit; default: 1. Scores above are rejected", _NUMBER),
    "threshold": Setting(
        "0.5", "score from which an answer is right; null, and for other ranges the default: no rule", _NUMBER
    ),
    "higher_is_better": Setting("true", "false: less is better", ((bool,), "true or false")),
    "num_fewshot": Setting("5", "few-shot examples; default: unknown", ((int, type(None)), "a whole number")),
}
SETTINGS = {**_ASKED, **VERDICT, **ITEM, **CELL}


def described() -> str:
    """All settings as the YAML file that --columns takes, with a comment on each."""
    parts = {
        f"needed: {', '.join(NEEDED)}. A column's name, or {{value: …}} for all rows": _ASKED,
        "where the table has them": VERDICT,
        "of the items": ITEM,
        "of all cells: values, no columns": CELL,
    }
    width = max(len(f"{name}: {setting.example}") for name, setting in SETTINGS.items())
    lines = []
    for head, settings in parts.items():
        lines.append(f"# {head}")
        lines += [f"{f'{name}: {one.example}':<{width}}  # {one.what}" for name, one in settings.items()]
    return "\n".join(lines) + "\n"


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting that does not exist or has a wrong type, and where one of NEEDED is missing."""
    if unknown := sorted(map(str, settings.keys() - SETTINGS)):
        near = difflib.get_close_matches(unknown[0], SETTINGS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(sorted(SETTINGS))}"
        raise ConfigError(f"the table's settings have no {', '.join(unknown)}; {hint}")
    if missing := [name for name in NEEDED if name not in settings]:
        raise ConfigError(f"the table's settings lack {', '.join(missing)}: name the column, or give {{value: …}}")
    for name, value in settings.items():
        kinds = SETTINGS[name].kinds
        if kinds is None and not (value is None or isinstance(value, str) or is_constant(value)):
            raise ConfigError(f"the table's setting {name} is {value!r}: a column's name or {{value: …}} is expected")
        if kinds is not None and (type(value) not in kinds[0] or value in (math.inf, -math.inf)):
            raise ConfigError(f"the table's setting {name} is {value!r}: {kinds[1]} is expected")


def is_constant(value: Any) -> bool:
    """Whether a setting stands for the same value in every row."""
    return isinstance(value, Mapping) and value.keys() == {"value"} and isinstance(value["value"], str | int | float)
