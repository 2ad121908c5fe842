"""Trains and asks routers on a Ray cluster: one Ray task for each router and fold, as many at once as it has cores.

Knows nothing of a trial's content (collectors.routers.spreading).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from collectors.atomic import write_whole
from collectors.routers.boards import Job, Runner
from collectors.routers.process import LOST
from collectors.routers.spreading import code_of, run_anywhere
from pipelines.fleet.cluster import Joined, cluster
from schemas.failures import one_line

#: A node that dies costs its trials another try.
_TRIES = 3
#: Seconds between two looks at the cluster's head.
_LOOK = 5.0


@contextmanager
def on_cluster(address: str) -> Iterator[Runner]:
    """Runs trials on the cluster at `address`; "auto" is that of a Ray job. Raises ConfigError without one."""
    with cluster(None if address == "auto" else address) as joined:

        def run(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
            return _run(joined, jobs, place)

        yield run


def _run(joined: Joined, jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
    paths = [path for path in place.iterdir() if not path.name.startswith(".")]  # without the lock
    files = {path.name: ray.put(np.asarray(np.memmap(path, np.uint8, "r"))) for path in paths}
    remote = ray.remote(_trial).options(num_cpus=1, max_retries=_TRIES)
    waiting = {remote.remote(job.trial, place, files, code_of(job.spec)): job for job in jobs}
    try:
        while waiting:
            joined.head.check()
            ended, _ = ray.wait(list(waiting), timeout=_LOOK)
            for one in ended:
                job = waiting.pop(one)
                yield job, _end(job, one)
    finally:
        for left in waiting:
            ray.cancel(left)


def _trial(trial: Mapping[str, Any], place: Path, files: Mapping[str, Any], code: str) -> tuple[dict[str, Any], bytes]:
    def bring(folder: Path) -> None:
        for name, file in files.items():
            ray.get(file).tofile(folder / name)

    return run_anywhere(trial, place, bring, code)


def _end(job: Job, ref: Any) -> dict[str, Any]:
    """How a trial ended; its file is written where it ended well. Raises whatever our own code raised."""
    try:
        ended, made = ray.get(ref)
    except RayTaskError:
        raise
    except RayError as error:  # its worker or node, again and again
        return {"failed": LOST, "message": one_line(error, 300)}
    if not ended:
        write_whole(job.out, made)
    found: dict[str, Any] = ended
    return found
