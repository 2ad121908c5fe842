"""Hendrycks' rule for equal answers of mathematics, as lm-eval has it.

Owns nothing but the place where lm-eval keeps it.
"""

from __future__ import annotations


def is_same_answer(one: str, other: str) -> bool:
    """Whether two answers in LaTeX are the same text after normalisation. Raises ImportError without lm-eval."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv  # 4 s: it imports the library of data sets

    return bool(is_equiv(one, other))
