"""Collects the answers of models, and turns them into matrices, figures and published versions.

    lake       one store: its names, shards, compactions and damage
    models     the models of the hub, their files, their sizes and their places on GPUs
    engines    answer token requests
    harness    lm-eval's tasks: requests and verdicts
    runs       plan and collect cells, and show the state of a run
    matrix     the matrix as arrays, pools of models, choices of routers
    metrics    measure routers
    prices     prices of models and GPUs
    pictures   figures and pages
    publish    published versions
    importers  read records of other projects
    exporters  write files for other projects

Nothing here imports Ray.
"""

import os

# tqdm reads this when it is first imported: lm-eval and datasets draw bars that fill a job's log line by line.
os.environ.setdefault("TQDM_DISABLE", "1")
