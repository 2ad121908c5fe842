"""One import of a source at a time.

Owns the claim, an object of the lake that names the process at work, and the rule for taking it over. Knows nothing of
imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator

from collectors.lake.claims import is_gone
from collectors.lake.layout import import_claim_name
from collectors.lake.store import Lake
from schemas.failures import ConfigError
from schemas.identity import digest


@contextlib.contextmanager
def claimed(lake: Lake, source: str) -> Iterator[None]:
    """Keeps a second import of the source out: of two that write the same cells, one would hide rows of the other.

    Takes over the claim of a process of this machine that is gone. Raises ConfigError for any other claim.
    """
    name = import_claim_name(digest(source))
    who = {"source": source, "host": socket.gethostname(), "process": os.getpid(), "token": secrets.token_hex(8)}
    mine, taken_over = json.dumps(who).encode(), None
    if not lake.create(name, mine):
        taken_over = _take_over(lake, name, source)
        if not lake.create(name, mine):
            raise ConfigError(f"another import of {source} began in this moment: wait for it")
    try:
        yield
    finally:
        lake.remove([name, *([taken_over] if taken_over else [])])


def _take_over(lake: Lake, name: str, source: str) -> str:
    """Removes the claim of a process that is gone. Returns an object that guards the next claim."""
    try:
        data = lake.read(name)
        other = json.loads(data)
    except FileNotFoundError:
        raise ConfigError(f"another import of {source} ended in this moment: try again") from None
    except (ValueError, RecursionError):
        other = None
    other = other if isinstance(other, dict) else {"host": "an unnamed host"}
    if other.get("host") != socket.gethostname() or not is_gone(other.get("process")):
        raise ConfigError(
            f"another import of {source} is at work, on {other.get('host')} (process {other.get('process')}): wait "
            f"for it, or if it is not, remove {lake.uri}/{name}"
        )
    # Named after that one claim: of two who find it one may remove it.
    turn = import_claim_name(digest([source, data.hex()]))
    if not lake.create(turn, b"{}"):
        raise ConfigError(
            f"another import of {source} began in this moment; if none is at work, remove {lake.uri}/{turn}"
        )
    lake.remove([name])
    return turn
