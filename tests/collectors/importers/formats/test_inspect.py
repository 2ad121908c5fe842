"""Logs of Inspect: whose tokens, which score, which run."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.importers.files import find_files
from collectors.importers.formats import inspect_ai
from collectors.importers.ingest import ingest
from collectors.importers.runs import by_run
from collectors.importers.sources import ImportSource
from collectors.importers.staging import Staging
from collectors.lake.store import Lake
from tests.helpers.importing import imported, rows, write_json

USAGE = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
SCORES = "SELECT imported_from, item, score, failure FROM records JOIN cells USING (cell_id) ORDER BY ALL"
TOKENS = "SELECT prompt_tokens, completion_tokens, cached_tokens FROM records ORDER BY item"


def log(samples: list[dict[str, Any]], created: str = "2025-01-01T00:00:00+00:00", **more: Any) -> dict[str, Any]:
    about = {"task": "quiz", "model": "openai/m", "created": created, "run_id": f"run of {created}", "config": {}}
    return {"version": 2, "status": "success", "eval": about, "samples": samples, **more}


def sample(key: int, value: Any = "C", **more: Any) -> dict[str, Any]:
    return {
        **{"id": key, "epoch": 1, "input": f"q{key}", "target": "A", "output": {"completion": "A"}},
        **{"scores": {"match": {"value": value}}, "model_usage": {"openai/m": USAGE}},
        **more,
    }


def with_usage(**usage: int) -> dict[str, Any]:
    return sample(0, model_usage={"openai/m": usage})


#: A provider's report -> prompt, completion and cached tokens, by the total; and whether it is odd.
USAGES: dict[str, tuple[dict[str, int], tuple[Any, ...], bool]] = {
    "cache_read": (
        {"input_tokens": 10, "output_tokens": 100, "total_tokens": 20110, "input_tokens_cache_read": 20000},
        (20010, 100, 20000),
        False,
    ),
    "cache_write": (
        {"input_tokens": 10, "output_tokens": 100, "total_tokens": 20110, "input_tokens_cache_write": 20000},
        (20010, 100, None),
        False,
    ),
    "cached_input_in_the_input": (
        {"input_tokens": 3000, "output_tokens": 100, "total_tokens": 3100, "input_tokens_cache_read": 2000},
        (3000, 100, 2000),
        False,
    ),
    "reasoning_in_the_total_alone": (
        {"input_tokens": 40, "output_tokens": 79, "total_tokens": 2448, "reasoning_tokens": 2329},
        (40, 2408, None),
        False,
    ),
    "reasoning_in_the_output": (
        {"input_tokens": 40, "output_tokens": 2408, "total_tokens": 2448, "reasoning_tokens": 2329},
        (40, 2408, None),
        False,
    ),
    "nothing_fits": (
        {"input_tokens": 40, "output_tokens": 79, "total_tokens": 5000, "input_tokens_cache_read": 7},
        (None, None, None),
        True,
    ),
    "cached_without_a_total": (
        {"input_tokens": 40, "output_tokens": 79, "input_tokens_cache_read": 7},
        (None, None, None),
        True,
    ),
    "plain_without_a_total": ({"input_tokens": 40, "output_tokens": 79}, (40, 79, None), False),
    "no_usage": ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, (None, None, None), False),
}


def test_inspect_tokens_are_those_that_add_up_to_the_total(tmp_path: Path) -> None:
    """A suspicion is of a whole file, so there is one of sound totals and one of odd ones."""
    for is_odd in (False, True):
        cases = [(usage, right) for usage, right, odd in USAGES.values() if odd == is_odd]
        samples = [sample(key, model_usage={"openai/m": usage}) for key, (usage, _) in enumerate(cases)]
        lake = tmp_path / f"lake-{is_odd}"
        report = imported("inspect", write_json(tmp_path / f"{is_odd}.json", log(samples)), lake)
        assert rows(lake, TOKENS) == [right for _, right in cases]
        # One of the sound samples has no usage, which is suspicious beside others that have.
        assert [one.kind for one in report.suspicions] == (["odd_total"] if is_odd else ["no_usage"])


def test_inspect_cached_tokens_cost_their_own_price(tmp_path: Path) -> None:
    """10 of 20,010 prompt tokens at $3, 20,000 at $0.30 a million, 100 answered at $15."""
    usage = USAGES["cache_read"][0]
    imported("inspect", write_json(tmp_path / "log.json", log([with_usage(**usage)])), tmp_path / "lake")
    [(prompt, completion, cached)] = rows(tmp_path / "lake", TOKENS)
    assert ((prompt - cached) * 3 + cached * 0.3 + completion * 15) / 1e6 == pytest.approx(0.00753)


JUDGE = {"input_tokens": 4000, "output_tokens": 900, "total_tokens": 4900}
BOTH = {"input_tokens": 4010, "output_tokens": 901, "total_tokens": 4911}
CALLS = [
    {"event": "span_begin", "id": "a", "type": "solver"},
    {"event": "model", "model": "openai/m", "span_id": "a", "output": {"usage": USAGE}},
    {"event": "span_begin", "id": "b", "type": "scorers"},
    {"event": "span_begin", "id": "c", "parent_id": "b", "type": "tool"},
    {"event": "model", "model": "openai/m", "span_id": "c", "output": {"usage": JUDGE}},
]
STEPS = [
    {"event": "model", "model": "openai/m", "output": {"usage": USAGE}},
    {"event": "step", "action": "begin", "type": "scorer"},
    {"event": "model", "model": "openai/m", "output": {"usage": JUDGE}},
    {"event": "step", "action": "end", "type": "scorer"},
]
JUDGED: dict[str, dict[str, Any]] = {
    "another_model": {"model_usage": {"openai/m": USAGE, "openai/judge": JUDGE}},
    "a_monitor": {"model_usage": {"monitor/x": JUDGE, "openai/m": USAGE}},
    "the_same_model_in_a_span": {"model_usage": {"openai/m": BOTH}, "events": CALLS},
    "the_same_model_in_a_step": {"model_usage": {"openai/m": BOTH}, "events": STEPS},
    "the_same_model_in_a_role": {"model_usage": {"openai/m": BOTH}, "role_usage": {"grader": JUDGE}},
}


def test_inspect_tokens_of_judges_are_not_the_models(tmp_path: Path) -> None:
    path = write_json(tmp_path / "log.json", log([sample(key, **one) for key, one in enumerate(JUDGED.values())]))
    imported("inspect", path, tmp_path / "lake")
    assert rows(tmp_path / "lake", TOKENS) == [(10, 1, None)] * len(JUDGED)


def test_inspect_unscored_samples_are_not_judged_and_keep_their_tokens(tmp_path: Path) -> None:
    samples = [sample(0), sample(1, float("nan")), sample(2, "I"), sample(3, "no grade"), sample(4, "yes")]
    imported("inspect", write_json(tmp_path / "log.json", log(samples)), tmp_path / "lake")
    assert [row[2:] for row in rows(tmp_path / "lake", SCORES)] == [
        *[(1.0, None), (None, "not_judged"), (0.0, None), (None, "not_judged"), (1.0, None)]
    ]
    assert rows(tmp_path / "lake", TOKENS) == [(10, 1, None)] * 5


def test_inspect_failed_samples_have_failed_unless_the_run_judged_them(tmp_path: Path) -> None:
    error = {"message": "the sandbox died"}
    samples = [sample(0, error=error, scores={}), sample(1, "I", error=error)]
    imported("inspect", write_json(tmp_path / "log.json", log(samples)), tmp_path / "lake")
    assert [row[2:] for row in rows(tmp_path / "lake", SCORES)] == [(None, "failed_call"), (0.0, None)]


def test_inspect_score_of_several_numbers_is_kept_and_one_of_them_is_primary(tmp_path: Path) -> None:
    several = {"prompt_level_strict": True, "inst_level_strict": 2, "num_instructions": 3}
    scores = {"ifeval": {"value": several}, "match": {"value": "I"}}
    of_match = {"name": "match", "scorer": "match", "metrics": {}}
    of_ifeval = {"name": "inst_level_strict", "scorer": "ifeval", "metrics": {}}
    for name, stated, metric, score, correct in (
        ("first", [of_match], "match", 0.0, False),
        ("second", [of_ifeval, of_match], "ifeval.inst_level_strict", 2.0, None),
        ("none", [], "ifeval.prompt_level_strict", 1.0, True),
    ):
        given = log([sample(0, scores=scores)], results={"scores": stated})
        imported("inspect", write_json(tmp_path / f"{name}.json", given), tmp_path / name)
        query = "SELECT metric, score, correct, metrics FROM records JOIN cells USING (cell_id)"
        [(*values, metrics)] = rows(tmp_path / name, query)
        assert values == [metric, score, correct]
        assert json.loads(metrics) == {"ifeval": several, "match": 0.0}


def test_inspect_logs_of_one_scorer_name_it_in_the_results(tmp_path: Path) -> None:
    old = {**sample(0), "score": {"value": "I"}}
    del old["scores"]
    path = write_json(tmp_path / "log.json", log([old], results={"scorer": {"name": "match"}, "metrics": {}}))
    imported("inspect", path, tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT metric, score FROM records JOIN cells USING (cell_id)") == [("match", 0.0)]


def test_inspect_scores_beyond_one_are_scores_without_a_threshold(tmp_path: Path) -> None:
    samples = [sample(key, value) for key, value in enumerate((1, 7.5, -0.033))]
    report = imported("inspect", write_json(tmp_path / "log.json", log(samples)), tmp_path / "lake")
    assert report.rejects == []
    assert rows(tmp_path / "lake", "SELECT score, correct FROM records ORDER BY item") == [
        *[(1.0, None), (7.5, None), (-0.033, None)]
    ]


def test_inspect_runs_of_one_model_stay_apart_and_the_newest_is_the_source_itself(tmp_path: Path) -> None:
    old = write_json(tmp_path / "logs/a.json", log([sample(0, "C"), sample(1, "I")], "2025-01-01T23:00:00-05:00"))
    imported("inspect", old, tmp_path / "lake", name="us")
    new = write_json(tmp_path / "logs/b.json", log([sample(0, "I"), sample(1, "C")], "2025-01-02T05:00:00+00:00"))
    older = [("us#2", 0, 1.0, None), ("us#2", 1, 0.0, None)]
    newer = [("us", 0, 0.0, None), ("us", 1, 1.0, None)]
    imported("inspect", [old, new], tmp_path / "both", name="us")
    assert rows(tmp_path / "both", SCORES) == newer + older
    report = imported("inspect", [old, new], tmp_path / "lake", name="us")
    assert (report.total.known, report.total.records, report.rejects) == (2, 2, [])
    # The lake's cells keep their names: the run that was imported first keeps the source's.
    swapped = {("us", item, 1.0 - item) for item in (0, 1)} | {("us#2", item, float(item)) for item in (0, 1)}
    assert {row[:3] for row in rows(tmp_path / "lake", SCORES)} == swapped


def test_inspect_log_that_an_earlier_program_imported_keeps_its_cell(tmp_path: Path) -> None:
    """Before runs had names, a lake's cell was of the only log, or of several mixed."""

    def read_unnamed(staging: Staging, source: ImportSource) -> None:
        by_run(inspect_ai.read)(staging, source)
        staging.run_names.clear()

    old = write_json(tmp_path / "a.json", log([sample(0, "C"), sample(1, "I")], "2025-01-01T00:00:00+00:00"))
    files = find_files([str(old)], inspect_ai.PATTERNS)
    ingest(read_unnamed, files, ImportSource("us", "inspect"), Lake(str(tmp_path / "lake")))
    new = write_json(tmp_path / "b.json", log([sample(0, "I"), sample(1, "C")], "2025-02-01T00:00:00+00:00"))
    report = imported("inspect", [old, new], tmp_path / "lake", name="us")
    assert (report.total.known, report.total.records, report.rejects) == (2, 2, [])
    assert [row[:3] for row in rows(tmp_path / "lake", SCORES)] == [
        *[("us", 0, 1.0), ("us", 1, 0.0), ("us#2", 0, 0.0), ("us#2", 1, 1.0)]
    ]


def test_inspect_log_as_json_and_as_archive_is_one_run(tmp_path: Path) -> None:
    given = log([sample(0)])
    write_json(tmp_path / "logs/a.json", given)
    archive(tmp_path / "logs/a.eval", given, zipfile.ZIP_DEFLATED)
    report = imported("inspect", tmp_path / "logs", tmp_path / "lake")
    assert (report.total.records, report.total.folded, report.rejects) == (1, 1, [])


def archive(path: Path, given: dict[str, Any], method: int) -> Path:
    """An .eval archive; by zstd (method 93) as Inspect writes it, in frames of 64 bytes."""
    members = {"header.json": {k: v for k, v in given.items() if k != "samples"}}
    members |= {f"samples/{one['id']}_epoch_1.json": one for one in given["samples"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if method == 93 else method) as file:
        for name, member in members.items():
            data = json.dumps(member).encode()
            file.writestr(name, b"".join(map(frame, blocks(data))) if method == 93 else data)
    if method == 93:
        path.write_bytes(as_zstd(path.read_bytes(), [json.dumps(one).encode() for one in members.values()]))
    return path


def blocks(data: bytes) -> list[bytes]:
    return [data[start : start + 64] for start in range(0, len(data), 64)]


def frame(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def as_zstd(data: bytes, contents: list[bytes]) -> bytes:
    """The stored members of an archive, declared to be `contents` compressed by zstd."""
    out = bytearray(data)
    places = zipfile.ZipFile(io.BytesIO(data))
    central = places.start_dir
    for info, content in zip(places.infolist(), contents, strict=True):
        declared = struct.pack("<III", zlib.crc32(content), info.compress_size, len(content))
        out[info.header_offset + 8 : info.header_offset + 10] = struct.pack("<H", 93)
        out[info.header_offset + 14 : info.header_offset + 26] = declared
        out[central + 10 : central + 12] = struct.pack("<H", 93)
        out[central + 16 : central + 28] = declared
        central += 46 + len(info.filename.encode()) + len(info.extra) + len(info.comment)
    return bytes(out)


def test_inspect_archive_by_zstd_is_read_over_all_its_frames(tmp_path: Path) -> None:
    path = archive(tmp_path / "log.eval", log([sample(0), sample(1, "I")]), 93)
    imported("inspect", path, tmp_path / "lake")
    assert [row[1:3] for row in rows(tmp_path / "lake", SCORES)] == [(0, 1.0), (1, 0.0)]


def test_inspect_archive_by_zstd_that_is_damaged_or_a_bomb_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "log.eval", log([sample(0, target="A" * 40)]), 93)
    data = bytearray(path.read_bytes())
    data[data.index(b"samples/") + 60] ^= 0xFF
    path.write_bytes(bytes(data))
    rejects = imported("inspect", path, tmp_path / "lake").rejects
    assert [(one["kind"], one["source_row"]) for one in rejects] == [("no_record", None), ("damaged", 1)]
    empty = log([sample(0, target="A" * 80_000_000)])
    [reject] = imported("inspect", bomb(tmp_path / "bomb.eval", empty), tmp_path / "lake").rejects
    assert (reject["kind"], reject["source_row"]) == ("bomb", None)


def bomb(path: Path, given: dict[str, Any]) -> Path:
    content = json.dumps(given["samples"][0]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("samples/0_epoch_1.json", frame(content))
    path.write_bytes(as_zstd(path.read_bytes(), [content]))
    return path


def test_inspect_scores_beside_the_primary_one_are_metrics_also_where_it_is_lacking(tmp_path: Path) -> None:
    about = {"task": "quiz", "model": "m", "config": {"epochs": 2}}
    given = [
        ("a", 1, {"main": 1, "other": 0.25}),
        ("a", 2, {"other": 0.75}),
        ("b", 1, {"main": 0}),
        ("b", 2, {"main": 1}),
    ]
    samples = [
        {"id": key, "epoch": epoch, "input": key, "scores": {name: {"value": one} for name, one in scores.items()}}
        for key, epoch, scores in given
    ]
    reductions = [
        {"scorer": name, "reducer": reducer, "samples": [{"sample_id": "a", "value": value}]}
        for name, reducer, value in (
            ("main", "mean", 1.0),
            ("main", "max", 1.0),
            ("other", "max", 0.75),
            ("other", "mean", 0.5),
        )
    ]
    write_json(tmp_path / "log.json", {"eval": about, "samples": samples, "reductions": reductions})
    imported("inspect", tmp_path / "log.json", tmp_path / "lake")
    query = "SELECT item, repeat, score, metrics FROM records ORDER BY ALL"
    assert rows(tmp_path / "lake", query) == [
        (0, 0, 1.0, '{"reducer":"mean","main":1.0,"other":0.5}'),
        (0, 1, 1.0, '{"main":1.0,"other":0.25}'),
        (0, 2, None, '{"other":0.75}'),
        (1, 1, 0.0, None),
        (1, 2, 1.0, None),
    ]
