"""Which of a method's networks are evaluated."""

from __future__ import annotations

import pytest

from udabench.errors import UsageError
from udabench.run.scoring import chosen_predictors
from udabench.testing import fake_registry, fake_setup
from udabench.testing.setup import fake_config

METHOD = fake_registry().methods.get("daformer")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, ["student", "teacher"]),
        (["teacher"], ["teacher"]),
        (["teacher", "student"], ["student", "teacher"]),
    ],
)
def test_predictors_are_chosen_by_name_and_keep_their_order(wanted: list[str] | None, chosen: list[str]) -> None:
    overrides = {"evaluate.predictors": wanted}
    method = METHOD(METHOD.Config(ignored_top=0, ignored_bottom=0), fake_setup())
    assert list(chosen_predictors(method, fake_config(overrides=overrides))) == chosen


def test_an_unknown_predictor_is_named() -> None:
    method = METHOD(METHOD.Config(ignored_top=0, ignored_bottom=0), fake_setup())
    with pytest.raises(UsageError, match=r"Unknown predictor \(evaluate.predictors\) 'teachr'. Did you mean 'teacher'"):
        chosen_predictors(method, fake_config(overrides={"evaluate.predictors": ["teachr"]}))
