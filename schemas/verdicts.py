"""When an answer is correct: the rule that collected and imported records share."""

from __future__ import annotations

#: Metrics that live in [0, 1], by name: an answer is correct from 0.5 on (truthfulqa_mc2's acc is a fraction).
UNIT_METRICS = ("acc", "exact_match", "f1", "em", "pass@", "pass_at", "prompt_level", "mc1", "mc2")
CORRECT_THRESHOLD = 0.5
