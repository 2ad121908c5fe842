"""The rule for a correct answer, which collected and imported records share."""

from __future__ import annotations

#: How the names of metrics in [0, 1] begin: an answer is correct from 0.5 on (truthfulqa_mc2's acc is a fraction).
UNIT_METRICS = ("acc", "exact_match", "f1", "em", "pass@", "pass_at", "prompt_level", "mc1", "mc2")
CORRECT_THRESHOLD = 0.5
