"""Collapse, losses that are no numbers, and the referee: by hand."""

from __future__ import annotations

import json
import math
import pickle

import pytest
import torch
from engine_fakes import samples

from udabench.engine.finite import Finiteness, NotFinite
from udabench.engine.referee import Referee
from udabench.engine.watch import WINDOW, Watchdog
from udabench.errors import PluginError
from udabench.method import Probe, Samples


def labels(*counts: int) -> torch.Tensor:
    """So many pixels of each class; the last number: of the unknown, 255."""
    ids = (*range(len(counts) - 1), 255)
    return torch.cat([torch.full((count,), index) for index, count in zip(ids, counts, strict=True)])


def feed(watchdog: Watchdog, *counts: int, start: int = 0) -> None:
    for iteration in range(start, start + WINDOW):
        watchdog.see_labels("pseudo", labels(*counts), iteration)


def test_a_class_above_95_percent_of_many_labels_is_told_once() -> None:
    said: list[str] = []
    watchdog = Watchdog(("road", "car", "sky"), said.append)
    feed(watchdog, 95, 5, 0, 0)
    assert watchdog.warnings == []
    feed(watchdog, 96, 4, 0, 0, start=WINDOW)
    feed(watchdog, 97, 3, 0, 0, start=2 * WINDOW)
    last = 2 * WINDOW - 1
    assert (
        said == watchdog.warnings == [f"collapse? pseudo: class 'road' holds 96.0 % of the pixels (iteration {last})"]
    )


@pytest.mark.parametrize(("unknown", "warnings"), [(90, 1), (91, 0)])
def test_all_of_almost_no_labels_says_nothing(unknown: int, warnings: int) -> None:
    """A tenth of 100 pixels is enough, 10 of 101 are not."""
    watchdog = Watchdog(("road", "car"))
    feed(watchdog, 10, 0, unknown)
    assert len(watchdog.warnings) == warnings


def test_a_class_that_vanishes_from_a_whole_window_is_told() -> None:
    watchdog = Watchdog(("road", "car", "sky"))
    feed(watchdog, 5, 5, 0, 0)
    feed(watchdog, 5, 5, 5, 0, start=WINDOW)
    feed(watchdog, 5, 0, 5, 0, start=2 * WINDOW)
    assert watchdog.warnings == [f"collapse? pseudo: class 'car' has vanished (iteration {3 * WINDOW - 1})"]


def test_a_class_missing_from_many_batches_has_not_vanished() -> None:
    watchdog = Watchdog(("road", "car"))
    for iteration in range(3 * WINDOW):
        watchdog.see_labels("pseudo", labels(5, 5 if iteration % 10 == 0 else 0, 0), iteration)
    assert watchdog.warnings == []


@pytest.mark.parametrize(("cars", "warnings"), [(WINDOW, 0), (WINDOW + 1, 1)])
def test_a_class_that_held_a_thousandth_at_most_may_go(cars: int, warnings: int) -> None:
    """1000 pixels a batch: a thousandth is one in each."""
    watchdog = Watchdog(("road", "sky", "car"))
    for iteration in range(WINDOW):
        now = 2 if iteration < cars - WINDOW else 1
        watchdog.see_labels("pseudo", labels(500, 500 - now, now, 0), iteration)
    feed(watchdog, 500, 500, 0, 0, start=WINDOW)
    assert len(watchdog.warnings) == warnings


def test_evaluations_are_judged_one_by_one_by_their_predictions() -> None:
    watchdog = Watchdog(("road", "car"))
    watchdog.see_matrix("evaluation", torch.tensor([[50, 10], [10, 30]]), 100)
    watchdog.see_matrix("evaluation", torch.tensor([[60, 0], [40, 0]]), 200)
    assert watchdog.warnings == [
        "collapse? evaluation: class 'road' holds 100.0 % of the pixels (iteration 200)",
        "collapse? evaluation: class 'car' has vanished (iteration 200)",
    ]


def test_evaluations_where_the_truth_is_so_are_no_collapse() -> None:
    """96 of 100 pixels are road, and no car is there to be found."""
    watchdog = Watchdog(("road", "sky", "car"))
    watchdog.see_matrix("evaluation", torch.tensor([[95, 0, 1], [0, 4, 0], [0, 0, 0]]), 100)
    watchdog.see_matrix("evaluation", torch.tensor([[96, 0, 0], [0, 4, 0], [0, 0, 0]]), 200)
    assert watchdog.warnings == []


def test_the_watchdog_goes_on_where_it_was() -> None:
    whole, first, second = (Watchdog(("road", "car", "sky")) for _ in range(3))
    for watchdog in (whole, first):
        feed(watchdog, 5, 5, 0, 0)
        for iteration in range(WINDOW, WINDOW + 50):
            watchdog.see_labels("pseudo", labels(5, 0, 0, 2), iteration)
    second.load(json.loads(json.dumps(first.state())))
    for iteration in range(WINDOW + 50, 2 * WINDOW):
        whole.see_labels("pseudo", labels(5, 0, 0, 2), iteration)
        second.see_labels("pseudo", labels(5, 0, 0, 2), iteration)
    assert len(whole.warnings) == 2
    assert second.state() == whole.state()


def test_the_first_loss_that_is_no_number_is_found_later() -> None:
    """As on a GPU: nothing is read between the steps."""
    finite = Finiteness()
    values = {3: (1.0, 2.0), 4: (1.5, 2.5), 5: (float("inf"), 3.0), 6: (float("nan"), float("nan"))}
    for iteration, (a, b) in values.items():
        finite.begin(iteration, (f"image{iteration}",))
        finite.see("a", torch.tensor(a), iteration)
        finite.see("b", torch.tensor(b), iteration)
    with pytest.raises(NotFinite) as found:
        finite.check()
    assert (found.value.what, found.value.iteration) == ("loss 'a'", 5)
    assert found.value.samples == ("image5",)
    assert found.value.values["a"] == math.inf
    finite.check()


def test_the_failure_comes_back_from_another_process() -> None:
    failure = pickle.loads(pickle.dumps(NotFinite("loss 'source'", 7, {"source": math.inf}, ("a", "b"))))
    assert str(failure) == "loss 'source'"
    assert (failure.iteration, failure.values, failure.samples) == (7, {"source": math.inf}, ("a", "b"))


def test_finite_losses_pass() -> None:
    finite = Finiteness()
    finite.begin(0, ("x",))
    finite.see("a", torch.tensor(1e30), 0)
    finite.check()


def probe(claimed: list[list[int]], valid: list[list[bool]] | None = None) -> Probe:
    given = samples(0, ("one",))
    image = torch.zeros(1, 3, 2, 2)
    mask = None if valid is None else torch.tensor([valid])
    return Probe("pseudo", torch.tensor([claimed]), given._replace(image=image, valid=mask))


def test_the_referee_counts_by_hand() -> None:
    """Claims 0 0 / 1 -, truth 0 1 / 1 ?: 3 of 4 claimed, 2 of 3 right; IoU 1/2 and 1/2."""
    scores = Referee(3, lambda asked: torch.tensor([[[0, 1], [1, 255]]])).score(probe([[0, 0], [1, 255]]))
    assert float(scores["density"]) == 0.75
    assert float(scores["accuracy"]) == pytest.approx(2 / 3)
    assert float(scores["miou"]) == pytest.approx(0.5)


def test_unknown_truth_and_padding_are_not_scored() -> None:
    truth = torch.tensor([[[0, 255], [1, 1]]])
    scores = Referee(3, lambda asked: truth).score(probe([[0, 2], [1, 2]], [[True, True], [True, False]]))
    assert float(scores["density"]) == 1
    assert float(scores["accuracy"]) == 1


def test_labels_are_opened_once_for_several_probes_of_the_same_samples() -> None:
    asked = []

    def truth(samples: Samples) -> torch.Tensor:
        asked.append(samples)
        return torch.tensor([[[0, 1], [1, 1]]])

    referee, first, other = Referee(3, truth), probe([[0, 0], [0, 0]]), probe([[0, 1], [1, 1]])
    accuracies = [
        float(referee.score(each)["accuracy"]) for each in (first, first._replace(labels=other.labels), other, first)
    ]
    assert accuracies == [0.25, 1, 1, 0.25]
    assert [id(each) for each in asked] == [id(each.samples) for each in (first, other, first)]


def test_without_truth_only_the_density_is_known() -> None:
    assert set(Referee(3).score(probe([[0, 0], [0, 255]]))) == {"density"}
    nothing = Referee(3, lambda asked: torch.zeros(1, 2, 2)).score(probe([[255, 255], [255, 255]]))
    assert math.isnan(float(nothing["accuracy"]))


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(PluginError, match=r"Probe 'pseudo' has labels of shape \(1, 1, 2\)"):
        Referee(3).score(probe([[0, 0]]))
