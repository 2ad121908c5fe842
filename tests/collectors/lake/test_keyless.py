"""No key that a user gives is stored or shown, wherever it stands."""

from __future__ import annotations

import contextlib
import functools
import http.server
import time
from pathlib import Path

import pytest

from collectors.specs import ModelSpec
from pipelines import ingest
from schemas.failures import RouterlakeError
from schemas.texts import CUT, holds_key_values, holds_keys, without_key_values, without_keys
from tests.helpers.importing import rows
from tests.helpers.local_server import serving
from tests.helpers.marked_commands import DEAR, PLACES
from tests.helpers.markers import KEY, found_in, shown_by
from tests.helpers.mini_tasks import own_caches
from tests.helpers.thorough import long_only

_ = own_caches


@pytest.mark.few(16)
@pytest.mark.parametrize("place", [pytest.param(name, marks=long_only if name in DEAR else ()) for name in PLACES])
def test_key_in_a_place_of_a_user_is_nowhere(place: str, tmp_path: Path, own_caches: None) -> None:
    shown = shown_by(PLACES[place], tmp_path)
    assert KEY not in shown
    assert list(found_in(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("http://me:k@host/a?b=1 and s3://b/c", f"http://{CUT}@host/a?b=1 and s3://b/c"),
        ("simplecache::s3://k:s@b/c", f"simplecache::s3://{CUT}@b/c"),
        ("https://h/a?x=1&X-Amz-Signature=abc", f"https://h/a?{CUT}"),
        ("https://h/a?sv=1&sig=abc", f"https://h/a?{CUT}"),
        ("https://h/a#access_token=abc", f"https://h/a?{CUT}"),
        ("hf://datasets/o/n@1.0", "hf://datasets/o/n@1.0"),
        ("pretrained=a/b,token=hf_x,dtype=auto", f"pretrained=a/b,token={CUT},dtype=auto"),
        ("Authorization: Bearer abcdefghijklmnop", f"Authorization: Bearer {CUT}"),
        ("max_tokens=8192, tokenizer=gpt2, a@b.c", "max_tokens=8192, tokenizer=gpt2, a@b.c"),
        ("hf_abcdefghijklmnopqrstuv is mine", f"{CUT} is mine"),
        ("no s3://me:a/k@bucket/x: gone", f"no s3://{CUT}@bucket/x: gone"),
        ("https://me:12/k@127.0.0.1:1/m", f"https://{CUT}@127.0.0.1:1/m"),
        ("http://127.0.0.1:8000/v1 failed for me@x.org", "http://127.0.0.1:8000/v1 failed for me@x.org"),
        ('["https://host","me@x.org"]', '["https://host","me@x.org"]'),
        *((f"https://me:a{mark}k@h/x", f"https://{CUT}@h/x") for mark in "'\"<#\\ /@:?"),
        ("github_pat_" + "k" * 30, CUT),
        ("glpat-" + "k" * 20, CUT),
        ("xoxb-" + "k" * 12, CUT),
        ("AIza" + "k" * 35, CUT),
        ("HF_TOKEN = k", f"HF_TOKEN = {CUT}"),
        ('{"token": "k", "max_tokens": 5}', f'{{"token": "{CUT}", "max_tokens": 5}}'),
        (
            '{"token": null, "eos_token": "</s>", "bos_token_id": 5}',
            '{"token": null, "eos_token": "</s>", "bos_token_id": 5}',
        ),
        ("x-api-key: k", f"x-api-key: {CUT}"),
        ("Authorization: Token k", f"Authorization: Token {CUT}"),
        ("--token k -v", f"--token {CUT} -v"),
        ("password='a b k'", f"password='{CUT}'"),
        ("AccountName=n;AccountKey=k==;Suffix=s", f"AccountName=n;AccountKey={CUT};Suffix=s"),
        ("https%3A%2F%2Fme%3Ak%40host%2Fa", f"https%3A%2F%2F{CUT}%40host%2Fa"),
        ("https://h/r?to=https%253A%252F%252Fk%2540host&x=1", f"https://h/r?to=https%253A%252F%252F{CUT}%2540host&x=1"),
        (r'{"a": "https:\/\/me:k@h\/a"}', rf'{{"a": "https:\/\/{CUT}@h\/a"}}'),
        ("https://h/a;jsessionid=k", f"https://h/a?{CUT}"),
        ("Set-Cookie: sid=k; Path=/\nX: 1", f"Set-Cookie: {CUT}\nX: 1"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nk\n-----END RSA PRIVATE KEY----- b", f"a {CUT} b"),
        ("r8_" + "k" * 37, CUT),
        ("clientSecret: k", f"clientSecret: {CUT}"),
        ("Incorrect API key provided: abcdefghijklmno1. See", f"Incorrect API key provided: {CUT} See"),
        ("Invalid user token 'abcdefghijklmno1'", f"Invalid user token '{CUT}'"),
        ("no value for the token MY_OWN_SERVER_KEY_2", "no value for the token MY_OWN_SERVER_KEY_2"),
        (
            "the tokens_per_second_of_engine_2 and a cookie: none",
            "the tokens_per_second_of_engine_2 and a cookie: none",
        ),
        ("Unexpected token: '<', credentials: none", "Unexpected token: '<', credentials: none"),
    ],
)
def test_without_keys_cuts_keys_and_nothing_else(text: str, cut: str) -> None:
    assert without_keys(text) == cut
    assert without_keys(cut) == cut


@pytest.mark.parametrize("part", ["%3A%2F%2F", "://a:", "cookie: a=b;", "-----BEGIN PRIVATE KEY-----", "token is "])
def test_long_text_is_searched_in_linear_time(part: str) -> None:
    """A quadratic search took 88 CPU-seconds."""
    start = time.process_time()
    without_keys(part * (200_000 // len(part)))
    assert time.process_time() - start < 5


def test_without_key_values_cuts_what_stands_behind_a_keys_name() -> None:
    value = {"options": {"hf_token": "abc", "max_tokens": 5, "n": ["s3://a:b@c"]}}
    assert without_key_values(value) == {"options": {"hf_token": CUT, "max_tokens": 5, "n": [f"s3://{CUT}@c"]}}
    assert holds_key_values(value)


def test_without_key_values_cuts_values_of_any_type_behind_a_keys_name() -> None:
    assert without_key_values({"headers": {"X-Mine": "k"}}) == {"headers": {"X-Mine": CUT}}
    assert holds_key_values({"headers": {"X-Mine": "k"}})
    keys = {"password": 12345, "credentials": ["x"], "secret": {"v": "x"}, "auth": "x", "pwd": "x", "AccountKey": "x"}
    rest = {"eos_token_id": 2, "usd_per_token": 0.1, "code": "sandbox", "key": "id", "token": None, "n": True}
    assert without_key_values({**keys, **rest}) == dict.fromkeys(keys, CUT) | rest
    assert not holds_key_values({**rest, 5: float("nan"), "deep": [{"max_tokens": 8}]})
    assert all(holds_key_values([{"deep": {name: value}}]) for name, value in keys.items())


@pytest.mark.parametrize("mark", "/'\"<\\# @:")
def test_address_with_any_password_holds_keys(mark: str) -> None:
    assert holds_keys(f"s3://me:a{mark}k@bucket/x")
    assert holds_keys(f"https://me:a{mark}k@127.0.0.1:1/m")
    assert not holds_keys("http://127.0.0.1:8000/m@main")


def test_import_of_a_signed_address_stores_and_shows_no_query(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "t.jsonl").write_text('{"model": "m", "task": "t", "id": "1", "score": 1}\nno JSON\n')
    (given / "t.none").write_text("")
    (given / "c.yaml").write_text("{model: model, task: task, key: id, score: score}")
    settings = ["--format", "table", "--columns", str(given / "c.yaml"), "--lake", str(tmp_path / "lake")]
    names = ("sig", "key", "auth", "pwd", "jwt", "pass", "code", "authkey", "AccountKey", "anything", "policy")
    query = "&".join(f"{name}=a.b.{KEY}" for name in names)
    with serving(functools.partial(_Folder, directory=str(given))) as served:  # type: ignore[arg-type]
        for file in ("t.jsonl", "t.none", "gone.jsonl"):
            with contextlib.suppress(RouterlakeError):
                ingest.main([f"{served}/{file}?{query}", *settings])
    stored = rows(tmp_path / "lake", "SELECT path, rejected FROM imports ORDER BY path")
    assert stored == [("t.jsonl", 1), ("t.none", 0)]
    shown = "".join(capsys.readouterr())
    assert "t.none" in shown
    assert KEY not in shown
    assert list(found_in(tmp_path)) == []


class _Folder(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


def test_source_with_a_name_of_the_environment_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/data/models")
    spec = ModelSpec(source="$MODELS/a")
    assert (spec.source, spec.place, spec.label) == ("$MODELS/a", "/data/models/a", "a")
    assert not holds_keys("s3://bucket/a b#c")
