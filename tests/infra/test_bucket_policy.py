"""The policies of infra/ allow the requests of the code to a store, each role its own part, and no others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from collectors.harness.loading import use_datasets
from collectors.lake.claims import Claims
from collectors.lake.compaction import compact
from collectors.lake.failure_rows import failure_row, write_failure
from collectors.lake.pruning import prune
from collectors.lake.spend import Accounts, Spent
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from collectors.publish.publishing import publish
from collectors.publish.verifying import verify
from collectors.publish.version import build_version
from collectors.runs.collector import Collector
from collectors.runs.config import load_config
from collectors.runs.planning import make_plan
from pipelines import collect, matrix, prices
from schemas.failures import ModelError
from schemas.identity import ShardName
from tests.helpers.filled_lakes import DESCRIPTION, NOW, plain_lake
from tests.helpers.iam import Statement, allows, deciding, listed, read_policy
from tests.helpers.object_store import BUCKET, ObjectStore
from tests.helpers.runs import CHOICE, ROOT, config
from tests.helpers.s3_requests import Asked, recorded
from tests.helpers.thorough import long_only

LAKE, PUBLISHED = f"s3://{BUCKET}/lake", f"s3://{BUCKET}/published"


def bucket_policy() -> list[Statement]:
    return _of_tests(read_policy(ROOT / "infra" / "bucket-policy.json", of_bucket=True))


def reader_policy() -> list[Statement]:
    return _of_tests(read_policy(ROOT / "infra" / "reader-policy.json", of_bucket=False))


def _of_tests(statements: list[Statement]) -> list[Statement]:
    """With the tests' bucket for the one that a person fills in."""
    ours = [r.replace("EXAMPLE-BUCKET", BUCKET) for s in statements for r in listed(s["Resource"])]
    assert all(BUCKET in resource for resource in ours)
    return [{**s, "Resource": [r.replace("EXAMPLE-BUCKET", BUCKET) for r in listed(s["Resource"])]} for s in statements]


def collecting(folder: Path) -> None:
    """A run as fleet.py drives it, without Ray: plan, write, collect, fail; and an object of 100 MiB, in parts."""
    path = config(folder, lake=LAKE, tasks=[CHOICE], models=["stub/alpha"])
    assert collect.main(["--config", str(path), "--dry-run"]) == 0
    run = load_config(str(path))
    lake = Lake(run.lake)
    use_datasets(run.datasets)
    plan = make_plan(run, lake)
    lake.open_for_writing()
    plan.write(lake)
    collector, cell = Collector(plan.run_id, lake.uri, "stub", {}, []), plan.cells[0].cell
    assert collector.collect(cell, 0, 3).committed
    assert not collector.collect(cell, 0, 3).committed
    sharing_and_paying(lake, plan.run_id, ShardName(cell.cell_id, 0, 4, 7))
    write_failure(lake, failure_row(plan.run_id, ModelError("gone"), model="stub/alpha", task=CHOICE, cell_id=None))
    create_in_parts(lake)


def create_in_parts(lake: Lake) -> None:
    assert lake.create("models/in-parts", bytes(101 * 2**20))
    assert not lake.create("models/in-parts", bytes(101 * 2**20))  # the upload is given up


def sharing_and_paying(lake: Lake, run_id: str, shard: ShardName) -> None:
    """What runs leave for each other, and take away again."""
    claims = Claims(lake, run_id)
    assert claims.take(shard)
    assert not claims.look(shard.cell_id, CHOICE).claimed
    claims.tidy(everything=True)
    accounts = Accounts(lake, "lake", run_id)
    for cells in (1, 2):
        accounts.write(Spent(cells=cells))
    assert Accounts(lake, "lake", "another").others()[run_id].cells == 2


def maintaining(folder: Path) -> None:
    lake = plain_lake(LAKE).lake
    assert prices.main(["--lake", LAKE, "--shipped", "gpus"]) == 0
    assert compact(lake).folded
    assert prune(lake, NOW).shards
    (folder / "version").mkdir()
    uri, _ = publish(build_version(lake, folder / "version", DESCRIPTION, "1.0.0"), PUBLISHED)
    assert not verify(uri).faults


def reading(_: Path) -> None:
    assert matrix.main(["--lake", LAKE, "--sql", "FROM leaderboard"]) == 0
    assert load_matrix(LAKE).scores.size
    assert load_matrix(f"{PUBLISHED}/1.0.0").scores.size


@pytest.fixture(scope="module")
def asked(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Asked]]:
    """What each role asks of a store that is empty at first, in this order."""
    found = {}
    for role, work in (("maintainer", maintaining), ("reader", reading), ("collector", collecting)):
        with recorded(object_store) as requests:
            work(tmp_path_factory.mktemp(role))
        found[role] = list(requests)
    return found


@long_only
@pytest.mark.slow
@pytest.mark.parametrize("role", ["collector", "maintainer"])
def test_bucket_policy_allows_all_that_the_role_asks(role: str, asked: dict[str, list[Asked]]) -> None:
    refused = {one for one in asked[role] if not allows(bucket_policy(), role, one)}
    assert refused == set()


@long_only
@pytest.mark.slow
def test_reader_policy_allows_all_that_readers_ask(asked: dict[str, list[Asked]]) -> None:
    assert {one for one in asked["reader"] if not allows(reader_policy(), None, one)} == set()


@long_only
@pytest.mark.slow
def test_policies_allow_no_action_at_no_place_that_nobody_asks_for(asked: dict[str, list[Asked]]) -> None:
    """A recorded request needs each pair of an action and a resource that a statement allows.

    Aborting an upload in parts belongs to the creation of objects: whether any is large depends on the lake.
    """
    idle = []
    for statements, roles in ((bucket_policy(), ("collector", "maintainer")), (reader_policy(), (None,))):
        for statement in statements:
            if statement["Effect"] == "Deny":
                continue
            for action in listed(statement["Action"]):
                for resource in listed(statement["Resource"]):
                    needed = action.replace("AbortMultipartUpload", "PutObject")
                    part = [{**statement, "Action": needed, "Resource": resource}]
                    if not any(allows(part, role, one) for role in roles for one in asked[role or "reader"]):
                        idle.append((statement["Sid"], action, resource))
    assert idle == []


@pytest.mark.slow
def test_objects_of_any_size_are_made_by_a_request_that_refuses_to_overwrite(object_store: ObjectStore) -> None:
    with recorded(object_store) as requests:
        create_in_parts(Lake(f"s3://{BUCKET}/written").open_for_writing())
    assert_refuse_to_overwrite(requests)


@long_only
@pytest.mark.slow
def test_every_object_is_made_by_a_request_that_refuses_to_overwrite(asked: dict[str, list[Asked]]) -> None:
    assert_refuse_to_overwrite([one for requests in asked.values() for one in requests])
    assert not [one for one in asked["reader"] if one.action not in ("s3:GetObject", "s3:ListBucket")]


def assert_refuse_to_overwrite(requests: list[Asked]) -> None:
    """What the Deny statement rests on, parts of an upload included."""
    made = [one for one in requests if one.creates]
    assert {one.operation for one in made} == {"PutObject", "CompleteMultipartUpload"}
    assert all(one.if_none_match for one in made)


def test_policies_refuse_what_no_role_should_do() -> None:
    shard = Asked("PutObject", "s3:PutObject", BUCKET, "lake/shards/task=t/x.parquet", True, True)
    gone = dataclasses.replace(shard, operation="DeleteObject", action="s3:DeleteObject")
    assert allows(bucket_policy(), "collector", shard)
    for role in ("collector", "maintainer"):
        over = dataclasses.replace(shard, if_none_match=False)
        assert deciding(bucket_policy(), role, over) == ("Deny", "NothingIsOverwritten")
        assert not allows(bucket_policy(), role, dataclasses.replace(shard, key="other/x"))
        assert not allows(bucket_policy(), role, dataclasses.replace(gone, key="published/1.0.0/manifest.json"))
    assert not allows(bucket_policy(), "collector", gone)
    assert not allows(bucket_policy(), "collector", dataclasses.replace(shard, key="published/1.0.0/x"))
    assert not allows(bucket_policy(), "stranger", shard)
    assert not allows(reader_policy(), None, shard)
    assert not allows(reader_policy(), None, gone)


def test_policies_give_the_names_that_the_manifests_use() -> None:
    documents = list(yaml.safe_load_all((ROOT / "infra" / "kuberay" / "rayjob.yaml").read_text()))
    role = documents[0]["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    lake = yaml.safe_load(documents[1]["data"]["collect.yaml"])["lake"]
    statements = read_policy(ROOT / "infra" / "bucket-policy.json", of_bucket=True)
    assert any(role in listed(s["Principal"]["AWS"]) for s in statements if s["Effect"] == "Allow")
    assert any(f"{lake.replace('s3://', 'arn:aws:s3:::')}/*" in listed(s["Resource"]) for s in statements)
