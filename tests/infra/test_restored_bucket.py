"""A bucket with versions is restored by removing delete markers, as the runbook says; on a real S3 server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from collectors.lake.holdings import committed
from collectors.lake.store import Lake
from tests.helpers.filled_lakes import plain_lake
from tests.helpers.object_store import ObjectStore
from tests.helpers.runs import ROOT

BUCKET = "versioned"


@pytest.mark.slow
def test_lake_whose_objects_were_deleted_is_whole_without_the_delete_markers(s3_environment: ObjectStore) -> None:
    client: Any = botocore.session.get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    lifecycle = json.loads(Path(ROOT / "infra" / "bucket-lifecycle.json").read_text())
    client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=lifecycle)
    lake = plain_lake(f"s3://{BUCKET}/lake").lake
    names, shards = lake.names(""), committed(lake)
    assert shards
    lake.remove(names)
    assert not Lake(lake.uri).exists()

    while True:
        listed = client.list_object_versions(Bucket=BUCKET, Prefix="lake/")
        markers = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in listed.get("DeleteMarkers", [])]
        if not markers:
            break
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": markers[:1000]})
    restored = Lake(lake.uri).open_for_reading()
    assert [name for name in restored.names("") if name in set(names)] == names
    assert committed(restored) == shards
