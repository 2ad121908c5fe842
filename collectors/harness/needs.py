"""What a task's own code needs of this machine beyond packages, and goes on without where it is missing.

Owns the check, made where a task is loaded. Knows nothing of answers.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from schemas.failures import TaskError

#: What lm-eval's IFEval tells sentences and words with, as nltk finds it.
PUNKT = "tokenizers/punkt_tab"


def check_needs(task: Any) -> None:
    """Raises TaskError where judging `task` needs nltk's sentence models and they are not here.

    lm-eval 0.4.13 fetches them when IFEval's code is imported and goes on when that fails: answers to instructions that
    count sentences or capital words could then not be judged, all others would be, and the score would be of those.
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
