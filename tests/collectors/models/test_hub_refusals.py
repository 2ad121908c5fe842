"""The catalog against a hub that refuses, vanishes, limits or sends damaged answers."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from collectors.lake.store import Lake
from collectors.models import hub_catalog
from collectors.models.catalog_query import choose
from collectors.models.hub_catalog import RecordedModels, Update, find, update
from collectors.models.hub_client import Hub, HubDownError
from collectors.specs import CatalogSpec
from schemas.failures import ConfigError
from tests.helpers.catalog_runs import QUERY, lake, models, run, served
from tests.helpers.model_hub import ModelHub, llama

__all__ = ["lake", "served"]  # fixtures


@pytest.mark.parametrize("status", [401, 403])
def test_gated_files_leave_what_the_hub_says_and_again_reads_them(served: ModelHub, lake: Lake, status: int) -> None:
    served.add(llama("org/gated", gated="manual", parameters=8_000_000_000), llama("org/open"))
    served.closed["org/gated"] = status
    done = run(lake)
    row = models(lake)["org/gated"]
    assert (row["skipped"], row["gated"], row["parameters"], row["config"]) == ("gated", True, 8_000_000_000, None)
    assert "HF_TOKEN" in done.troubled["org/gated"]
    served.asked.clear()
    run(lake)
    assert served.calls() == {"list": 1}
    run(lake, again=True)
    assert (
        len([name for name in lake.names("models") if "read-" in name]) == 1
    )  # the same problem is not reported twice
    served.closed.clear()
    run(lake, again=True)
    row = models(lake)["org/gated"]
    assert (row["skipped"], row["problem"], row["parameters"], row["dtype"]) == (None, None, 6464, "bfloat16")


def test_copy_of_gated_weights_is_taken_in_their_place(served: ModelHub, lake: Lake) -> None:
    served.add(
        llama("meta/first", gated="auto"), llama("other/copy", seed="meta/first", created="2025-01-01T00:00:00Z")
    )
    served.closed["meta/first"] = 403
    run(lake)
    assert [model.spec.source for model in choose(lake, CatalogSpec(catalog="true"))] == ["other/copy"]


def test_repo_that_vanishes_after_the_listing_is_named(served: ModelHub, lake: Lake) -> None:
    served.add(llama("org/gone"), llama("org/stays"))
    hub, recorded = Hub(), RecordedModels.of(lake)
    listed, to_read = find(hub, recorded, QUERY, [], lambda seen: None)
    del served.repos["org/gone"]
    done = update(hub, lake, recorded, listed, to_read, jobs=2, progress=lambda now: None)
    assert set(done.troubled) == {"org/gone"}
    assert {name: row["skipped"] for name, row in models(lake).items()} == {"org/gone": "not_found", "org/stays": None}


def test_pauses_that_the_hub_asks_for_are_kept(served: ModelHub, lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    served.add(llama("org/a"), llama("org/b"))
    served.faults = [
        ("/api/models?", 429, {"Retry-After": "1"}),
        ("/api/models?", 503, {"Retry-After": "0"}),
        ("config.json", 429, {"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";q=3000;w=300'}),
        ("model.safetensors", 500, {}),
        ("org/b/revision", 502, {}),
    ]
    started = time.monotonic()
    assert run(lake).read == 2
    assert time.monotonic() - started >= 2
    assert "asks for a pause: waiting 1 s" in caplog.text
    assert served.faults == []
    assert set(models(lake, "skipped IS NULL")) == {"org/a", "org/b"}


@pytest.mark.parametrize("body", [b'[{"id": "org/a", "sha', b"<html>try again</html>", b'{"error": "x"}'])
def test_damaged_answers_are_asked_for_again(served: ModelHub, lake: Lake, body: bytes) -> None:
    served.add(llama("org/a"))
    served.damaged = [("/api/models?", body), ("/api/models/org/a", body)]
    assert run(lake).read == 1
    assert models(lake)["org/a"]["problem"] is None


def test_repo_that_alone_is_not_answered_fails_and_others_go_on(served: ModelHub, lake: Lake) -> None:
    served.add(*(llama(f"org/{name}") for name in "abcdef"))
    served.faults = [("org/b/revision", 500, {})] * 50
    done = run(lake)
    assert set(done.failed) == {"org/b"}
    assert "HTTP 500" in done.failed["org/b"]
    assert models(lake)["org/b"]["skipped"] == "unread"
    served.faults.clear()
    assert run(lake).read == 1


def test_hub_that_stays_down_is_given_up_and_the_next_run_goes_on(
    served: ModelHub, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_catalog, "BATCH", 2)
    served.add(*(llama(f"org/{n:02d}") for n in range(12)))
    hub, recorded = Hub(patience=0.5), RecordedModels.of(lake)
    listed, to_read = find(hub, recorded, QUERY, [], lambda seen: None)

    def progress(now: Update) -> None:
        served.down = now.read >= 5

    with pytest.raises(HubDownError, match=r"has not answered for .*HTTP 503.*given up") as caught:
        update(hub, lake, recorded, listed, to_read, jobs=2, progress=progress)
    assert "\n" not in str(caught.value)
    held = models(lake, "skipped IS NULL")
    assert 5 <= len(held) < 12
    served.down = False
    served.asked.clear()
    run(lake)
    assert served.calls()["info"] == 12 - len(held)
    assert len(models(lake, "skipped IS NULL")) == 12


def test_run_that_is_stopped_leaves_what_it_read(served: ModelHub, lake: Lake) -> None:
    served.add(*(llama(f"org/{n:02d}") for n in range(30)))
    hub, recorded = Hub(), RecordedModels.of(lake)
    listed, to_read = find(hub, recorded, QUERY, [], lambda seen: None)

    def progress(now: Update) -> None:
        if now.read == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(hub, lake, recorded, listed, to_read, jobs=2, progress=progress)
    assert len(models(lake, "skipped IS NULL")) == 7
    served.asked.clear()
    run(lake)
    assert served.calls()["info"] == 23


def test_retry_after_longer_than_patience_is_given_up_at_once(served: ModelHub, lake: Lake) -> None:
    served.faults = [("/api/models?", 429, {"Retry-After": "3600"})]
    with pytest.raises(HubDownError, match="3600 s more"):
        run(lake, patience=5)


def test_token_goes_to_the_hub_alone(
    served: ModelHub, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served.token = "hf_secretsecret"
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    served.add(llama("org/a"))
    served.faults = [("config.json", 500, {})]
    assert run(lake).read == 1
    files = b"".join(path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file())
    assert b"secretsecret" not in files
    assert "secretsecret" not in caplog.text
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(ConfigError, match="refuses the token in HF_TOKEN") as caught:
        run(lake)
    assert "hf_expired" not in str(caught.value)


def test_listing_that_goes_on_at_another_host_is_refused(served: ModelHub, lake: Lake) -> None:
    served.page_size = 1
    served.add(llama("org/a"), llama("org/b"))
    served.endpoint = "http://elsewhere.example"
    with pytest.raises(ConfigError, match="continues its listing elsewhere"):
        run(lake)
