"""A real S3 server for tests: SeaweedFS on free ports of 127.0.0.1, with a bucket, in a folder of its own.

Owns the server's process and the environment variables with its address. Knows nothing of lakes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

#: Seconds until a server that starts, or stops, on a busy machine is taken for hung.
PATIENCE = 120.0
BUCKET = "lakes"


@dataclass(frozen=True)
class ObjectStore:
    endpoint: str
    key: str
    secret: str
    pid: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What s3fs and DuckDB read; the machine's own AWS settings and metadata service are kept out."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[ObjectStore]:
    """A running server with an empty bucket BUCKET, its data below `folder`; stopped by pid at the end."""
    ports = dict(zip(("master", "volume", "filer", "s3", "admin"), _free_ports(5), strict=True))
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    identity = {"name": "tests", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    settings = folder / "s3.json"
    settings.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir(exist_ok=True)
    off = ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command = [
        *(str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "mini", f"-dir={folder / 'data'}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={settings}", "-s3.autoCreateBucket=false", *off),
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]
    log = folder / "log"
    with open(log, "wb") as stream:
        environment = {**os.environ, "GOMEMLIMIT": "512MiB"}
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
    try:
        store = ObjectStore(f"http://127.0.0.1:{ports['s3']}", key, secret, server.pid, log)
        _make_bucket(store, server)
        yield store
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _make_bucket(store: ObjectStore, server: subprocess.Popen[bytes]) -> None:
    """Asks until the server that starts has made the bucket and keeps an object in it."""
    client = s3fs.S3FileSystem(
        key=store.key,
        secret=store.secret,
        endpoint_url=store.endpoint,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if not client.exists(BUCKET):
                client.mkdir(BUCKET)
            client.pipe_file(f"{BUCKET}/ready", b"yes")
            client.rm_file(f"{BUCKET}/ready")
            return
        except Exception as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no object store: {store.log.read_text()[-2000:]}") from error
            time.sleep(0.05)  # between two looks


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, as is each one's gRPC companion, 10000 above it."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10000, 22000)
        if port not in found and _is_free(port) and _is_free(port + 10000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One server for all tests that ask for it, started by the first."""
    with (
        tempfile.TemporaryDirectory(prefix="rl-s3-", ignore_cleanup_errors=True) as folder,
        serve(Path(folder)) as store,
    ):
        yield store


@pytest.fixture
def s3_environment(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The server as this process's S3; clients made before or after with other settings are forgotten."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield object_store
    s3fs.S3FileSystem.clear_instance_cache()


def main() -> None:
    """A server for a person: its data in a folder that stays, until Ctrl-C."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with serve(folder) as store:
        print("an S3 server; in the shell that uses it:\n")
        for name, value in store.environment.items():
            print(f"export {name}={value}")
        print(f"\nthen: --lake s3://{BUCKET}/my-lake; Ctrl-C ends it", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
