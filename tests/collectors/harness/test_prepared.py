"""Cached requests equal newly built ones, and everything that changes a request is part of its cache key."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from collectors.engines.stub import ByteTokenizer
from collectors.harness.encoding import Encoder
from collectors.harness.loading import load_tasks
from collectors.harness.prepared import RequestStore, code_fingerprint
from collectors.harness.tasks import BoundTask
from collectors.lake.layout import REQUESTS
from collectors.lake.store import Lake
from collectors.models.pinning import tokenizer_fingerprint
from collectors.specs import TaskSpec
from schemas.failures import TaskError
from tests.helpers.mini_tasks import ITEMS, TASKS, write_tasks

ROOT = Path(__file__).parents[3]
CHAT = {"chat_template": True, "system_prompt": "Add.", "num_fewshot": 2}
FINGERPRINT = code_fingerprint(ByteTokenizer())


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
        (tmp_path / "cache").mkdir()
        for names in (ROOT / ".cache" / "routerlake").glob("lm-eval-*.json"):  # seconds to make
            shutil.copy(names, tmp_path / "cache")
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    return folder


def bind(tasks: Path, name: str, **prompting: Any) -> BoundTask:
    (task,), failed = load_tasks(TaskSpec(task=name, **prompting), [str(tasks)])
    assert not failed
    return task


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache" / "requests").glob("*.npz")}


def told(instances: dict[int, list[Any]]) -> list[Any]:
    return [
        (item, i.request_type, repr(i.args), i.idx, i.doc, i.doc_id, i.task_name, i.repeats, i.metadata, i.resps)
        for item, group in instances.items()
        for i in group
    ]


@pytest.mark.parametrize("prompting", [{}, CHAT, {"num_fewshot": 3, "fewshot_seed": 7}], ids=["plain", "chat", "shots"])
@pytest.mark.parametrize("name", TASKS)
def test_kept_requests_equal_the_built_ones(tasks: Path, name: str, prompting: dict[str, Any]) -> None:
    task, encoder = bind(tasks, name, **prompting), Encoder(ByteTokenizer())
    built = encoder.build(task, ITEMS)
    first, second = RequestStore(), RequestStore()
    for store in (first, second):  # the second reads the first one's cache
        for begin, end in ((0, ITEMS - 1), (3, 7), (11, 11)):
            instances, encoded = store.get(task, encoder, FINGERPRINT, ITEMS).items(range(begin, end + 1))
            assert told(instances) == told({i: built[i] for i in range(begin, end + 1)})
            assert encoded == {i: encoder.encode(built[i]) for i in range(begin, end + 1)}
    assert (first.built, first.tokenised, second.built, second.tokenised) == (1, 1, 0, 0)


def test_another_prompting_tokenizer_template_or_limit_is_kept_apart(tasks: Path, tmp_path: Path) -> None:
    class Other(ByteTokenizer):
        chat_template = "<role> content"

    promptings: list[dict[str, Any]] = [
        {},
        {"num_fewshot": 1},
        {"num_fewshot": 2},
        {"num_fewshot": 2, "fewshot_seed": 2},
        {"system_prompt": "Add."},
        CHAT,
        CHAT | {"fewshot_as_multiturn": False},
    ]
    store = RequestStore()
    for seen, prompting in enumerate(promptings, 1):
        store.get(bind(tasks, "mini_choice", **prompting), Encoder(ByteTokenizer()), FINGERPRINT, ITEMS)
        assert store.built == seen == store.tokenised
    plain, chat = bind(tasks, "mini_choice"), bind(tasks, "mini_choice", **CHAT)
    store.get(plain, Encoder(ByteTokenizer()), FINGERPRINT, 4)
    assert (store.built, store.tokenised) == (8, 8)
    store.get(plain, Encoder(Other()), "another", ITEMS)  # the same texts, other ids
    assert (store.built, store.tokenised) == (8, 9)
    store.get(chat, Encoder(Other()), "another", ITEMS)
    assert (store.built, store.tokenised) == (9, 10)
    assert len(files(tmp_path)) == 19


def test_changed_settings_items_or_examples_are_kept_apart(tasks: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> set[str]:
        RequestStore().get(bind(folder, "mini_choice", num_fewshot=2), Encoder(ByteTokenizer()), FINGERPRINT, ITEMS)
        return files(tmp_path)

    seen = [digests(tasks)]
    for name in ("mini_choice.yaml", "test.jsonl", "train.jsonl"):
        folder = write_tasks(tmp_path / name)
        if name.endswith("yaml"):
            settings = yaml.safe_load((folder / name).read_text())
            (folder / name).write_text(yaml.safe_dump(settings | {"target_delimiter": "  "}))
        else:
            first, *rest = (folder / name).read_text().splitlines()
            changed = json.dumps(json.loads(first) | {"a": 77})
            (folder / name).write_text("\n".join([changed, *rest]) + "\n")
        seen.append(digests(folder))
    assert [len(names) for names in seen] == [2, 4, 6, 8]


def test_template_that_writes_the_date_is_kept_for_its_date(tasks: Path) -> None:
    class Dated(ByteTokenizer):
        chat_template = "{{ strftime_now('%d %b %Y') }}"

        def apply_chat_template(self, conversation: Any, *, strftime_now: Any, **kwargs: Any) -> Any:
            return strftime_now("%d %b %Y") + super().apply_chat_template(conversation, **kwargs)

    task, store = bind(tasks, "mini_choice", **CHAT), RequestStore()
    for date, built in (("2026-01-31", 1), ("2026-01-31", 1), ("2026-02-01", 2)):
        encoder = Encoder(Dated())
        encoder.chat_date = date
        instances, _ = store.get(task, encoder, FINGERPRINT, ITEMS).items([0])
        assert instances[0][0].args[0][:11] == ("31 Jan 2026" if built == 1 else "01 Feb 2026")
        assert store.built == built
    with pytest.raises(TaskError, match="writes today's date") as caught:
        store.get(task, Encoder(Dated()), FINGERPRINT, ITEMS)
    assert caught.value.kind == "dated_template"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_damaged_file_is_made_anew(tasks: Path, tmp_path: Path, damage: str) -> None:
    task, encoder = bind(tasks, "mini_choice", num_fewshot=2), Encoder(ByteTokenizer())
    sound = RequestStore().get(task, encoder, FINGERPRINT, ITEMS).items(range(ITEMS))
    draw = random.Random(0)
    for _ in range(10 if damage == "flipped" else 1):
        for path in (tmp_path / "cache" / "requests").glob("*.npz"):
            data = bytearray(path.read_bytes())
            data[draw.randrange(len(data))] ^= 255
            spoiled = {"cut": data[: len(data) // 2], "empty": b"", "flipped": data, "text": b"no archive at all"}
            path.write_bytes(spoiled[damage])
        store = RequestStore()
        instances, encoded = store.get(task, encoder, FINGERPRINT, ITEMS).items(range(ITEMS))
        assert (told(instances), encoded) == (told(sound[0]), sound[1])
        assert damage == "flipped" or (store.built, store.tokenised) == (1, 1)
    again = RequestStore()
    again.get(task, encoder, FINGERPRINT, ITEMS)
    assert (again.built, again.tokenised) == (0, 0)


def test_workers_at_once_build_once_and_agree(tasks: Path) -> None:
    bound = [bind(tasks, "mini_choice", num_fewshot=2) for _ in range(4)]

    def get(task: BoundTask) -> tuple[int, Any]:
        store = RequestStore()
        return (
            store.built,
            store.get(task, Encoder(ByteTokenizer()), FINGERPRINT, ITEMS).items(range(4))[1],
            store.built,
        )

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(get, bound))
    assert sum(after for *_, after in found) == 1
    assert all(encoded == found[0][1] for _, encoded, _ in found)


def test_requests_that_are_more_than_texts_are_built_by_each(tasks: Path, tmp_path: Path) -> None:
    for change in ("doc", "settings", "class"):
        name = "mini_generate" if change == "settings" else "mini_choice"
        task, encoder = bind(tasks, name), Encoder(ByteTokenizer())
        if change == "settings":
            task.task.config.generation_kwargs["until"] = ("\n",)  # a tuple: JSON has none
        elif change == "doc":
            task.docs = [doc | {"seen": True} for doc in task.docs]
        else:
            task.task.__class__ = type("Own", (type(task.task),), {})
        for _ in range(2):
            store = RequestStore()
            instances, encoded = store.get(task, encoder, FINGERPRINT, ITEMS).items(range(2, 6))
            built = encoder.build(task, ITEMS)
            assert [i.args for group in instances.values() for i in group] == [
                i.args for group in built[2:6] for i in group
            ]
            assert encoded[4] == encoder.encode(built[4])
            assert store.built == 1
    assert not files(tmp_path)


def test_lake_shares_requests_between_nodes_and_loses_damaged_ones(tasks: Path, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    task, encoder = bind(tasks, "mini_choice"), Encoder(ByteTokenizer())
    sound = RequestStore(lake).get(task, encoder, FINGERPRINT, ITEMS).items(range(ITEMS))
    names = lake.names(REQUESTS)
    assert len(names) == 2
    for damaged in (False, True):
        shutil.rmtree(tmp_path / "cache" / "requests")
        if damaged:
            for name in names:
                (tmp_path / "lake" / name).write_bytes(b"damaged")
        store = RequestStore(lake)
        assert store.get(task, encoder, FINGERPRINT, ITEMS).items(range(ITEMS))[1] == sound[1]
        assert (store.built, store.tokenised) == (damaged, damaged)
    shutil.rmtree(tmp_path / "cache" / "requests")
    store = RequestStore(lake)
    store.get(task, encoder, FINGERPRINT, ITEMS)
    assert (store.built, store.tokenised) == (0, 0)


def test_cache_that_cannot_be_written_costs_no_run(tasks: Path, tmp_path: Path) -> None:
    store = RequestStore()
    shutil.rmtree(tmp_path / "cache" / "requests")
    (tmp_path / "cache" / "requests").mkdir()
    lake = Lake(str(tmp_path / "nowhere"))
    (tmp_path / "nowhere").write_text("a file")
    store.lake = lake
    found = store.get(bind(tasks, "mini_choice"), Encoder(ByteTokenizer()), FINGERPRINT, ITEMS)
    assert len(found.items(range(4))[0]) == 4


def test_tokenizer_fingerprint_tells_tokenizers_apart_and_not_weights(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    assert len({tokenizer_fingerprint(folder) for folder in tiny_models.values()}) == 1
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["good"], folder)
    seen = {tokenizer_fingerprint(folder)}
    for name, old, new in (
        ("tokenizer.json", '"<|pad|>"', '"<|pat|>"'),
        ("tokenizer_config.json", "2048", "1024"),
        ("config.json", '"llama"', '"mistral"'),
    ):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
        seen.add(tokenizer_fingerprint(folder))
    assert len(seen) == 4
