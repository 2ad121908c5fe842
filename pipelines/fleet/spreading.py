"""Spreads long work over a Ray cluster: one task for each piece, as many at once as the cluster has cores.

Owns the option --ray. Knows nothing of the work. A piece has to be safe to do twice: a node that dies costs its pieces
a second try. Ray is imported where it is used: that takes a second.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from collectors.lake.spread import Spread

Work = TypeVar("Work")
Result = TypeVar("Result")

_TRIES = 3
#: Pieces that are handed out for each core: a second one begins at once, and few lie in memory.
_HANDED_OUT = 2


def add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="auto",
        help="spread the work over this Ray cluster; without an address over that of RAY_ADDRESS or of `ray job "
        "submit`, else over the cores of this machine",
    )


@contextmanager
def spread_over(address: str | None) -> Iterator[Spread | None]:
    """The cluster that --ray names; None without the option. Raises ConfigError without a cluster at an address."""
    if address is None:
        yield None
        return
    from pipelines.fleet.cluster import cluster

    with cluster(None if address == "auto" else address):
        yield _in_tasks


def _in_tasks(function: Callable[[Work], Result], works: Iterable[Work]) -> Iterator[Result]:
    import ray

    task: Any = ray.remote(function).options(num_cpus=1, max_retries=_TRIES)
    most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _HANDED_OUT
    ahead: deque[Any] = deque()
    for work in works:
        ahead.append(task.remote(work))
        if len(ahead) >= most:
            yield _result(ahead.popleft())
    while ahead:
        yield _result(ahead.popleft())


def _result(future: Any) -> Any:
    """The result of a task. Raises the task's own error."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(future)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
