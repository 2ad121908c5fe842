"""Checks for data files that a task's code needs on this machine and silently does without.

Owns the check, which runs when a task is loaded. Knows nothing of answers.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from schemas.failures import TaskError

#: nltk's path of the models that lm-eval's IFEval uses to count sentences and words.
PUNKT = "tokenizers/punkt_tab"


def check_needs(task: Any) -> None:
    """Raises TaskError when `task` needs nltk's sentence models and this machine lacks them.

    lm-eval 0.4.13 downloads them when IFEval's code is imported, and continues when that fails. Answers to instructions
    that count sentences or capital words could then not be judged, and the score would cover only the others.
    """
    judge = task.config.process_results
    if not callable(judge) or Path(inspect.getfile(judge)).parent.name != "ifeval":
        return
    import nltk  # half a second, and the task's code has imported it

    try:
        nltk.data.find(PUNKT)
    except LookupError:
        raise TaskError(
            f"task {task.task_name} counts sentences with nltk's punkt_tab, which is not on this machine: run "
            f"`python -m nltk.downloader punkt_tab` or let NLTK_DATA name a folder that has {PUNKT}",
            kind="no_data",
        ) from None
