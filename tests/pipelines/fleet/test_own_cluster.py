"""A cluster of a run's own: nobody on another machine reaches it, and no other user its sockets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.fleet.cluster import _short_place, cluster
from schemas.failures import ConfigError


def listeners() -> set[str]:
    """The addresses at which this process and all below it listen."""
    me = psutil.Process()
    connections = [c for process in (me, *me.children(recursive=True)) for c in process.net_connections("inet")]
    return {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_own_cluster_listens_on_loopback_alone_in_a_folder_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(None) as joined:
        assert joined.own
        assert listeners() <= {"127.0.0.1", "::1"}
        folder = Path(ray._private.worker._global_node.get_temp_dir_path()).parent
        found = folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.getuid(), 0o700)
    assert not folder.exists()


def test_place_of_sockets_that_others_can_replace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Path("/tmp") / f"rl{os.getpid()}"
    short.mkdir()
    try:
        monkeypatch.setattr("tempfile.tempdir", str(short))
        assert _short_place() == str(short)
        short.chmod(0o777)
        with pytest.raises(ConfigError, match="other users can replace"):
            _short_place()
        short.chmod(0o1777)
        assert _short_place() == str(short)
        monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "x" * 17)
        assert _short_place() == "/tmp", "Ray's sockets there would have 108 bytes"
    finally:
        short.rmdir()
