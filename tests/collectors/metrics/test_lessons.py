"""Accuracy and latency, against the tables that the paper's authors published with their notebook."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.lessons import Latency, accuracy_and_latency, first_correct, random_accuracy_and_latency

#: Test items, and of each model in list order: how many of them it answers right, and its seconds per prompt.
GSM8K = (1319, [486, 938, 616, 891, 665, 788], [0.7, 7.1, 1.8, 4.7, 1.0, 3.7])
MMLU = (1530, [754, 977, 773, 740, 647, 790, 950], [1.0, 3.0, 4.8, 2.3, 2.4, 1.1, 1.8])


@pytest.mark.parametrize(
    ("data", "models", "accuracy", "seconds"),
    [
        (GSM8K, (0, 3), 73.08567096285064, 2.683402489626556),
        (GSM8K, (1, 3), 81.80439727065959, 6.786376274328081),
        (GSM8K, (2, 4), 63.00227445034117, 1.593020457280385),
        (MMLU, (1, 5), 73.59477124183007, 2.7485790408525754),
        (MMLU, (3, 6), 70.06535947712418, 2.145149253731343),
    ],
)
def test_oracle_of_two_models_is_the_published_one(
    data: tuple[int, list[int], list[float]], models: tuple[int, int], accuracy: float, seconds: float
) -> None:
    """Neither the choice of items that the first model solves matters, nor the second one's scores on them."""
    items, right, latencies = data
    solved, either = right[models[0]], round(accuracy / 100 * items)
    scores = np.zeros((items, 2))
    scores[:solved, 0] = 1
    scores[solved - (right[models[1]] - (either - solved)) : either, 1] = 1
    assert scores.sum(axis=0).tolist() == [right[model] for model in models]
    found = accuracy_and_latency(first_correct(scores), scores, np.array(latencies)[list(models)])
    assert (100 * found.accuracy, found.seconds) == pytest.approx((accuracy, seconds))


@pytest.mark.parametrize(
    ("data", "accuracy", "seconds"),
    [(GSM8K, 55.37801364670209, 3.6233322536554033), (MMLU, 52.562810457516505, 2.348721446697509)],
)
def test_random_closed_form_is_the_published_mean_of_a_thousand_draws(
    data: tuple[int, list[int], list[float]], accuracy: float, seconds: float
) -> None:
    items, right, latencies = data
    scores = (np.arange(items)[:, np.newaxis] < np.array(right)).astype(np.float32)
    found = random_accuracy_and_latency(scores, np.array(latencies))
    # five standard errors of the mean of 1,000 draws; one draw of the accuracy scatters by at most 1.4 points
    assert 100 * found.accuracy == pytest.approx(accuracy, abs=5 * 1.4 / 1000**0.5)
    assert found.seconds == pytest.approx(seconds, abs=5 * 0.1 / 1000**0.5)
    assert (found.items, found.left_out) == (items, 0)


def test_first_correct_follows_the_list_and_not_the_clock() -> None:
    scores = np.array([[0, 1, 1], [0, 0, 0], [1, np.nan, 0]])
    assert first_correct(scores).tolist() == [1, 0, NO_CHOICE]
    found = accuracy_and_latency(first_correct(scores), scores, np.array([1.0, 9.0, 2.0]))
    assert found == Latency(accuracy=0.5, seconds=9.0, items=2, left_out=1)


def test_latency_counts_right_answers_only_and_is_unknown_without_any() -> None:
    scores = np.array([[1.0, 0], [0, 0], [0, 1], [np.nan, 1]])
    seconds = np.array([2.0, 5.0])
    assert accuracy_and_latency(np.array([0, 1, 1, 0]), scores, seconds) == Latency(2 / 3, 3.5, 3, 1)
    assert accuracy_and_latency(np.array([1, 1, 0, -1]), scores, seconds) == Latency(0, None, 3, 1)
    assert random_accuracy_and_latency(scores[1:2], seconds) == Latency(0, None, 1, 0)


def test_latency_unknown_of_a_model_or_of_all_items_is_refused() -> None:
    with pytest.raises(ValueError, match="latency of model 1 is unknown"):
        accuracy_and_latency(np.array([0]), np.ones((1, 2)), np.array([1, np.nan]))
    for measure in (lambda s, t: accuracy_and_latency(np.array([0]), s, t), random_accuracy_and_latency):
        with pytest.raises(ValueError, match="no item of 1"):
            measure(np.full((1, 2), np.nan), np.ones(2))
