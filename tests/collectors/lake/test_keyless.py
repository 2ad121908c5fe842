"""No key that a user gives is stored or shown, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.specs import ModelSpec
from schemas.texts import CUT, holds_keys, without_key_values, without_keys
from tests.helpers.markers import KEY, PLACES, found_in, shown_by
from tests.helpers.mini_tasks import own_caches

_ = own_caches


@pytest.mark.parametrize("place", PLACES)
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
    ],
)
def test_without_keys_cuts_keys_and_nothing_else(text: str, cut: str) -> None:
    assert without_keys(text) == cut
    assert without_keys(cut) == cut


def test_without_key_values_cuts_what_stands_behind_a_keys_name() -> None:
    value = {"options": {"hf_token": "abc", "max_tokens": 5, "n": ["s3://a:b@c"]}}
    assert without_key_values(value) == {"options": {"hf_token": CUT, "max_tokens": 5, "n": [f"s3://{CUT}@c"]}}


def test_source_with_a_name_of_the_environment_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/data/models")
    spec = ModelSpec(source="$MODELS/a")
    assert (spec.source, spec.place, spec.label) == ("$MODELS/a", "/data/models/a", "a")
    assert not holds_keys("s3://bucket/a b#c")
