"""Answers of object stores: the first writer wins, errors are plain, and faults lose nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from collectors.lake.holdings import committed
from collectors.lake.layout import shard_name
from collectors.lake.seals import sealed_json
from collectors.lake.store import Lake
from schemas.failures import StorageError
from schemas.identity import ShardName
from tests.helpers.answering_stores import answering, replying, store_at
from tests.helpers.fault_proxy import Faults, faulty
from tests.helpers.object_store import BUCKET, ObjectStore


@pytest.mark.parametrize(
    ("replies", "created"),
    [
        ([(200, "")], True),
        ([(412, "PreconditionFailed")], False),
        ([(412, "")], False),
        ([(409, "ConditionalRequestConflict"), (409, "OperationAborted"), (200, "")], True),
        ([(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")], False),
    ],
)
def test_create_reply_of_the_store_tells_who_won(replies: list[tuple[int, str]], created: bool) -> None:
    with answering(*replies) as (endpoint, puts), store_at(endpoint):
        assert Lake("s3://bucket/lake").create("x", b"1") is created
    assert puts == ["*"] * len(replies)


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (400, "InvalidArgument", ""),
        (403, "AccessDenied", "AWS_PROFILE"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
        (404, "NoSuchBucket", "make the bucket first"),
        (409, "Busy", ""),
    ],
)
def test_create_other_refusals_are_errors_even_when_they_speak_of_412(status: int, code: str, advice: str) -> None:
    with answering((status, code)) as (endpoint, _), store_at(endpoint), pytest.raises(StorageError) as caught:
        Lake("s3://bucket/lake").create("x", b"1")
    assert str(caught.value).startswith("cannot write x to the lake at s3://bucket/lake: ")
    assert advice in str(caught.value)
    assert "hidden-secret" not in str(caught.value)


def test_open_for_writing_store_takes_every_put_is_refused() -> None:
    refused = pytest.raises(StorageError, match="ignores exclusive creation: commits would be lost")
    with answering((200, "")) as (endpoint, _), store_at(endpoint), refused:
        Lake("s3://bucket/lake").open_for_writing()


def test_read_of_a_garbled_body_is_asked_once_more() -> None:
    sound = sealed_json({"a": 1}, "x.json")
    garbled = sound.replace(b"1,", b"2,", 1)
    assert garbled != sound
    with replying((200, garbled), (200, sound)) as (endpoint, asked), store_at(endpoint):
        assert Lake("s3://bucket/lake").read("x.json") == sound
    assert len(asked) == 2
    with replying((200, garbled)) as (endpoint, asked), store_at(endpoint):
        assert Lake("s3://bucket/lake").read("x.json") == garbled, "it is so in the store: the reader names it"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
        (403, "AccessDenied", "AWS_PROFILE"),
    ],
)
def test_has_refused_without_a_body_is_asked_again_for_the_reason(status: int, code: str, advice: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    with (
        replying((status, body), head=status) as (endpoint, _),
        store_at(endpoint),
    ):
        for use in (Lake("s3://bucket/lake").has, Lake("s3://bucket/lake").read):
            with pytest.raises(StorageError, match=advice):
                use("x")


def every_use(uri: str) -> Iterator[str]:
    """The messages of all operations of a lake; each one has to fail."""
    lake = Lake(uri)
    for use in (lake.exists, lake.open_for_writing, lambda: lake.create("x", b"1"), lambda: lake.names("shards")):
        with pytest.raises(StorageError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("cannot ")
        yield str(caught.value)


@pytest.mark.slow  # the client tries for 8 s
def test_lake_store_out_of_reach_is_one_line() -> None:
    with (
        store_at("http://127.0.0.1:9"),
        pytest.raises(StorageError, match=r"^cannot read shards/schema/schema.parquet in the lake at .*127\.0\.0\.1:9"),
    ):
        Lake("s3://bucket/lake").exists()


def test_lake_without_credentials_is_one_line_for_every_use() -> None:
    with store_at("http://127.0.0.1:9", "", ""):
        assert all("redentials" in message for message in every_use("s3://bucket/lake"))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_lake_wrong_credentials_are_one_line_without_the_secret(object_store: ObjectStore, wrong: str) -> None:
    given = {"key": object_store.key, "secret": object_store.secret, wrong: "wrong-value"}
    with store_at(object_store.endpoint, **given):
        for message in every_use(f"s3://{BUCKET}/lake"):
            assert "PermissionError" in message
            assert not [part for part in (object_store.secret, "wrong-value") if part in message]


@pytest.mark.slow
def test_lake_in_a_bucket_that_is_missing_says_so(s3_environment: ObjectStore) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        Lake("s3://no-such-bucket/lake").open_for_writing()


@pytest.mark.few(5)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's ü日本", "[a]", "a b", "100%", "a=b", "it's", "a+b", "ü日本"])
def test_lake_at_any_key_works(s3_environment: ObjectStore, name: str) -> None:
    uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/{name}/"
    lake, shard = Lake(uri).open_for_writing(), ShardName("0123456789abcdef", 0, 0, 1)
    assert lake.create(shard_name("t", shard), b"1")
    assert not Lake(uri).create(shard_name("t", shard), b"1")
    assert committed(Lake(uri).open_for_reading()) == {shard.cell_id: [shard]}


@pytest.mark.slow
def test_lake_behind_a_store_that_fails_at_random_loses_and_doubles_nothing(object_store: ObjectStore) -> None:
    """Busy answers, cut connections before and after the store has done its part, and late ones: 1 request in 4."""
    faults = Faults(seed=secrets.randbelow(10**6))
    print(f"seed {faults.seed}")
    uri, names = f"s3://{BUCKET}/{secrets.token_hex(4)}/lake", [f"runs/{i}" for i in range(25)]
    with (
        faulty(object_store.endpoint, faults) as endpoint,
        store_at(endpoint, object_store.key, object_store.secret),
    ):
        lake = Lake(uri)

        def write(writer: int) -> list[str]:
            return [name for name in names if lake.create(name, f"{writer} {name}".encode() * 1000)]

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(write, range(4)))
        assert lake.names("runs") == sorted(names)
        assert all(lake.has(name) for name in names)
    assert sum(faults.seen[kind] for kind in ("refused", "before", "late")) > 0  # by chance one kind may not come
    # If the answer to a writer is lost, it learns that another was faster, never the other way round.
    assert len({name for one in won for name in one}) == sum(map(len, won)) <= len(names)
    with store_at(object_store.endpoint, object_store.key, object_store.secret):
        there = Lake(uri)
        stored = {name: there.filesystem.cat_file(f"{there.root}/{name}") for name in names}
    for name, data in stored.items():
        assert data in [f"{writer} {name}".encode() * 1000 for writer in range(4)]
    for writer, mine in enumerate(won):
        assert all(stored[name].startswith(str(writer).encode()) for name in mine)
