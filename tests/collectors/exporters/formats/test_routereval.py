"""RouterEval's files, read back by the rules of its description."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.exporters.formats.routereval import name_of, routereval_names, split_indices, write_files
from collectors.metrics.routereval import REFERENCE_ACCURACY
from collectors.metrics.splits import GROUPS, routereval_pools, routereval_split, seeded
from schemas.failures import ConfigError
from tests.helpers.exporting import answers, build, exported, grids
from tests.helpers.importing import imported, rows


def matrix(items: int, models: int, seed: int = 0) -> dict[str, list[float]]:
    random = np.random.default_rng(seed)
    chances = np.linspace(0.2, 0.85, models)
    scores = (random.random((items, models)) < chances).astype(float)
    return {f"org/m{column:02}": scores[:, column].tolist() for column in range(models)}


def load(path: Path) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file)


TASKS = ("arc_challenge", "mmlu_virology", "mmlu_anatomy", "leaderboard_ifeval", "quiz")


def test_routereval_raw_files_read_back_are_the_lake(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", matrix(20, 6), tasks=TASKS)
    exported(lake, "routereval", tmp_path / "out")
    subs = {
        "old": ["harness_arc_challenge_25", "harness_hendrycksTest_anatomy_5", "harness_hendrycksTest_virology_5"],
        "new": ["ifeval"],
        "other": ["quiz"],
    }
    tasks = {routereval_names()[task].sub if task != "quiz" else "quiz": task for task in TASKS}
    written = []
    for family, names in subs.items():
        value, prompts = (load(tmp_path / f"out/leaderboard_{family}{end}.pkl") for end in ("", "_prompt"))
        assert set(value["data"]) == set(prompts) == set(names)
        for sub, content in value["data"].items():
            scores = content["correctness"]
            assert scores.shape == (20, len(value["model"]))
            assert prompts[sub][0] == "plain"
            assert prompts[sub][10] == "question 10"
            written += [
                (tasks[sub], item, model, scores[item, column])
                for item in range(20)
                for column, model in enumerate(value["model"])
            ]
    assert sorted(written) == answers(lake, "task, item, model, score")


def test_routereval_through_the_importer_is_the_same(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", matrix(20, 6), tasks=("quiz",))
    exported(lake, "routereval", tmp_path / "out")
    assert imported("routereval", tmp_path / "out", tmp_path / "second").rejects == []
    columns = "task, item, model, score"
    assert rows(tmp_path / "second", f"SELECT {columns} FROM costs ORDER BY task, item, model") == answers(
        lake, columns
    )
    assert rows(tmp_path / "second", "SELECT prompt FROM items WHERE item = 1") == [("[not python]",)]


def test_routereval_router_data_set_read_back_is_the_lake(tmp_path: Path) -> None:
    scores_of = {"mmlu_anatomy": matrix(30, 12, 1), "mmlu_virology": matrix(25, 12, 2)}
    lake = build(tmp_path / "lake", scores_of["mmlu_anatomy"], tasks=("mmlu_anatomy",))
    other = build(tmp_path / "other", scores_of["mmlu_virology"], tasks=("mmlu_virology",))
    both = grids(lake, "routereval") + grids(other, "routereval")
    notes = write_files(both, tmp_path / "out", None)
    value = load(tmp_path / "out/router_dataset/mmlu_router_dataset.pkl")
    models = sorted(scores_of["mmlu_anatomy"])
    whole = np.concatenate([np.array([of[m] for m in models]).T for of in scores_of.values()])
    order: list[Any] = [[], [], []]
    np.random.seed(42)
    for first, count in ((0, 30), (30, 25)):
        places = list(range(first, first + count))
        np.random.shuffle(places)
        cuts = [0, int(0.8 * count), int(0.9 * count), count]
        for part in range(3):
            order[part] += places[cuts[part] : cuts[part + 1]]
    assert set(value) == {"easy", "hard", "split_index", "prompt"}
    random = seeded()
    routereval_split([30, 25], random)
    drawn, _ = routereval_pools(whole, random)
    for part, places in zip(("train", "val", "test"), order, strict=True):
        assert value["split_index"][f"{part}_indices"].tolist() == places
        assert value["prompt"][f"{part}_prompt"][0] == (both[0].prompts + both[1].prompts)[places[0]]
    for difficulty, size in (("easy", 3), ("easy", 5), ("hard", 10)):
        for group in GROUPS:
            pool = value[difficulty][size][group]
            columns = [models.index(model) for model in pool["model"]]
            assert columns == drawn[difficulty, size, group].tolist()
            run = np.load(tmp_path / f"out/npz/mmlu/{group}_{size}.npz")
            assert set(run) == {"train_score", "val_score", "test_score"}
            for part, places in zip(("train", "val", "test"), order, strict=True):
                np.testing.assert_array_equal(pool["data"][f"{part}_score"], whole[np.ix_(places, columns)])
                np.testing.assert_array_equal(run[f"{part}_score"], whole[np.ix_(places, columns)])
            assert "train_label" not in pool["data"]
    assert value["hard"][100] == {}
    assert "mmlu: no pool all_weak of 100: 12 of 12 models have a mean above 0.1, 100 are needed" in notes
    assert sum("no pool" in line for line in notes) == 6
    assert "mmlu is 2 of its 57 sub-scenarios: split and pools are of these alone" in notes
    assert "harness_hendrycksTest_anatomy_5 was asked with 0 examples, whatever it is called" in notes


def test_routereval_labels_of_truthfulqa_are_what_is_nearly_the_best(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = {f"m{n}": random.uniform(0.2, 0.8, 30).tolist() for n in range(5)}
    exported(build(tmp_path / "lake", scores, tasks=("truthfulqa_mc2",)), "routereval", tmp_path / "out")
    value = load(tmp_path / "out/router_dataset/harness_truthfulqa_mc_0_router_dataset.pkl")
    data = value["easy"][3]["all_strong"]["data"]
    by_hand = [[float(score >= 0.95 * max(row)) for score in row] for row in data["train_score"].tolist()]
    assert data["train_label"].tolist() == by_hand


def test_routereval_embeddings_stand_in_every_file(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", matrix(20, 6), tasks=("quiz",))
    notes = write_files(
        grids(lake, "routereval"), tmp_path / "out", lambda texts: np.array([[len(t), i] for i, t in enumerate(texts)])
    )
    assert not any("without embeddings" in line for line in notes)
    vectors = load(tmp_path / "out/sentence_bert_result.pkl")["quiz"]
    assert vectors[:, 1].tolist() == list(range(20))
    value = load(tmp_path / "out/router_dataset/quiz_router_dataset.pkl")
    for part in ("train", "val", "test"):
        places = value["split_index"][f"{part}_indices"]
        assert value["embedding"][f"{part}_embed"][:, 1].tolist() == places.tolist()
        assert np.load(tmp_path / "out/npz/quiz/all_weak_3.npz")[f"{part}_embed"][:, 1].tolist() == places.tolist()


def test_routereval_encoder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", matrix(20, 6))
    with pytest.raises(ConfigError, match="--encoder"):
        exported(lake, "routereval", tmp_path / "out", encoder=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_routereval_of_too_few_models_writes_matrices_and_names_every_pool(tmp_path: Path) -> None:
    notes = exported(build(tmp_path / "lake", matrix(20, 2)), "routereval", tmp_path / "out")
    assert sum("quiz: no pool" in line for line in notes) == 15
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "leaderboard_other.pkl",
        "leaderboard_other_prompt.pkl",
    ]


def test_routereval_missing_scores_are_refused(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [1, None], "b": [1, 0]})
    with pytest.raises(ConfigError, match="1 of 4 answers have no score"):
        exported(lake, "routereval", tmp_path / "out")


def test_routereval_task_that_is_no_files_name_is_an_error(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [1, 0]}, tasks=("x" * 130,))
    with pytest.raises(ConfigError, match=r"cannot hold 1 task: 'x+' is too long"):
        exported(lake, "routereval", tmp_path / "out")


def test_routereval_names_are_all_of_its_data_sets_and_of_nothing_else() -> None:
    names = set(routereval_names().values())
    assert {name.data_set for name in names} == set(REFERENCE_ACCURACY)
    assert len(names) == 62 + 38 + 1
    assert (name_of("mmlu_law").family, name_of("mmlu_virology_continuation").family) == ("other", "other")
    assert name_of("gpqa_main_zeroshot").family == "other"
    assert (name_of("arc_challenge").shots, name_of("truthfulqa_mc2").shots) == (25, None)


def test_routereval_split_of_several_sub_scenarios_holds_each_item_once() -> None:
    parts = split_indices([7, 0, 23])
    assert sorted(np.concatenate(list(parts.values()))) == list(range(30))
    np.random.seed(42)  # once, as get_router_dataset.py does
    rest = []
    for first, count in ((0, 7), (7, 23)):
        places = np.arange(first, first + count)
        np.random.shuffle(places)
        rest += places[int(0.9 * count) :].tolist()
    assert parts["test"].tolist() == rest
