"""What a program asked of an object store, as the permissions that AWS wants for it.

Owns a proxy that writes requests down, and the table from S3's operations to the actions of its policies (Amazon S3
User Guide, "Required permissions for Amazon S3 API operations"). Knows nothing of policies or lakes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import s3fs
from aiohttp import web

from tests.helpers.fault_proxy import Faults, faulty
from tests.helpers.object_store import ObjectStore


@dataclass(frozen=True)
class Asked:
    """One permission that a request needs."""

    operation: str
    action: str
    bucket: str
    #: Empty: the bucket itself.
    key: str
    #: Whether the request refuses to overwrite, and whether it is one that makes an object (for s3:PutObject).
    if_none_match: bool = False
    creates: bool = False


@dataclass
class Recorder(Faults):
    """A proxy without faults; `asked` holds the requests."""

    refused: float = 0
    cut_before: float = 0
    cut_after: float = 0
    late: float = 0
    asked: list[Asked] = field(default_factory=list)

    def hear(self, request: web.Request, body: bytes) -> None:
        self.asked += permissions(request, body)


def permissions(request: web.Request, body: bytes) -> list[Asked]:
    """What `request` needs. Raises AssertionError for an operation that is not in the table."""
    bucket, _, key = request.path.strip("/").partition("/")
    method, query = request.method, set(request.query) - {"x-id"}
    guarded = request.headers.get("If-None-Match") == "*"
    assert "x-amz-copy-source" not in request.headers
    if not key:
        if method == "GET" and (not query or "list-type" in query or "prefix" in query):
            return [Asked("ListObjects", "s3:ListBucket", bucket, "")]
        if method == "HEAD":
            return [Asked("HeadBucket", "s3:ListBucket", bucket, "")]
        assert (method, query) == ("POST", {"delete"}), (method, query)
        keys = [node.text or "" for node in ET.fromstring(body).iter() if node.tag.rpartition("}")[2] == "Key"]
        return [Asked("DeleteObjects", "s3:DeleteObject", bucket, one) for one in keys]
    operations = {
        ("GET", frozenset()): Asked("GetObject", "s3:GetObject", bucket, key),
        ("HEAD", frozenset()): Asked("HeadObject", "s3:GetObject", bucket, key),
        ("DELETE", frozenset()): Asked("DeleteObject", "s3:DeleteObject", bucket, key),
        ("PUT", frozenset()): Asked("PutObject", "s3:PutObject", bucket, key, guarded, creates=True),
        ("POST", frozenset({"uploads"})): Asked("CreateMultipartUpload", "s3:PutObject", bucket, key),
        ("PUT", frozenset({"partNumber", "uploadId"})): Asked("UploadPart", "s3:PutObject", bucket, key),
        ("POST", frozenset({"uploadId"})): Asked(
            "CompleteMultipartUpload", "s3:PutObject", bucket, key, guarded, creates=True
        ),
        ("DELETE", frozenset({"uploadId"})): Asked("AbortMultipartUpload", "s3:AbortMultipartUpload", bucket, key),
    }
    assert (method, frozenset(query)) in operations, (method, query)
    return [operations[method, frozenset(query)]]


@contextmanager
def recorded(store: ObjectStore) -> Iterator[list[Asked]]:
    """What this process asks of `store` meanwhile, which is its S3."""
    recorder = Recorder()
    with faulty(store.endpoint, recorder) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in {**store.environment, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield recorder.asked
    s3fs.S3FileSystem.clear_instance_cache()
