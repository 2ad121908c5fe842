"""Collecting what models answer, and what becomes of it: each folder is a room of its own.

    lake       one store: its names, shards, compactions and damage
    models     which models there are, how large they are, where they fit, and their files
    engines    what answers token requests
    harness    lm-eval's tasks: requests and verdicts
    runs       what is planned and collected, and how a run stands
    matrix     the matrix as arrays, pools of models, what routers chose
    metrics    what a router is worth
    prices     what models and GPUs cost
    pictures   figures and pages
    publish    published versions
    importers  records that others wrote
    exporters  files that others read

Knows no Ray.
"""

import os

# tqdm reads this when it is first imported: lm-eval and datasets draw bars that fill a job's log line by line.
os.environ.setdefault("TQDM_DISABLE", "1")
