"""What a method can reach through its setup."""

from __future__ import annotations

import inspect

import pytest
import torch

from udabench.config import MethodConfig
from udabench.errors import CheckpointError, UsageError
from udabench.method import Setup
from udabench.parts.self_trainer import SelfTrainer
from udabench.parts.supervised import Supervised
from udabench.parts.wrapper import Wrapper
from udabench.resolve import Layer, resolve
from udabench.run.setup import Initial
from udabench.testing import fake_setup


def test_a_setup_shows_what_the_contract_names_and_no_more() -> None:
    contract = {name for name, _ in inspect.getmembers(Setup) if not name.startswith("_")}
    assert {name for name in dir(fake_setup()) if not name.startswith("_")} == contract


def test_a_method_takes_its_validated_values() -> None:
    setup = fake_setup(overrides={"network.name": "fake"})
    built = setup.method("source_only", {"ce_avg": "valid"})
    assert isinstance(built, Supervised)
    assert built.config.ce_avg == "valid"
    again = setup.method("source_only", built.config)
    assert isinstance(again, Supervised)
    assert again.config is built.config


def test_problems_of_a_methods_values_are_explained_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        fake_setup().method("t2sda", {"emma": 1, "threshold": 2})
    message = str(caught.value)
    assert "Unknown key 'settings.emma' (inner method t2sda). Did you mean 'settings.ema'?" in message
    assert "settings.threshold = 2: input should be less than or equal to 1" in message


def test_a_method_in_a_method_in_a_setup() -> None:
    setup = fake_setup(overrides={"network.name": "fake"})
    values = {"inner": "dacs", "inner_settings": {"ema": 0.5, "ignored_top": 0, "ignored_bottom": 0}}
    built = setup.method("mic", values)
    assert isinstance(built, Wrapper)
    assert isinstance(built.inner, SelfTrainer)
    assert built.inner.config.ema == 0.5
    assert built.inner.config.mix_scope == "image"


def test_named_weights_are_taken_over_those_of_another_run() -> None:
    begun = fake_setup(overrides={"network.name": "lite0"}).network()
    setup = fake_setup(overrides={"network.name": "lite0"}, initial=Initial(begun.state_dict(), "run a", "0" * 64))
    taken, named = setup.network(), setup.network("none")
    assert all(torch.equal(a, b) for a, b in zip(begun.parameters(), taken.parameters(), strict=True))
    assert [(report.source, report.coverage, report.missing) for report in taken.reports] == [("run a", 1.0, ())]
    assert not all(torch.equal(a, b) for a, b in zip(begun.parameters(), named.parameters(), strict=True))
    assert {report.source for report in named.reports} != {"run a"}


def test_weights_of_another_network_are_refused() -> None:
    other = fake_setup(overrides={"network.name": "fake"}).network()
    setup = fake_setup(overrides={"network.name": "lite0"}, initial=Initial(other.state_dict(), "run a", "0" * 64))
    with pytest.raises(CheckpointError, match=r"Weights run a cover 0.0% of the network"):
        setup.network()


def test_a_bare_setup_reads_no_weights() -> None:
    setup = fake_setup(overrides={"network.name": "lite0", "network.weights": "there-is-no-such.pth"}, bare=True)
    assert {report.matched for report in setup.network("nor-this.pth").reports} == {0}


def test_the_segmenters_optimiser_and_schedule_are_those_configured() -> None:
    """BDL's Adam for FCN-8s: betas 0.9 and 0.99, a tenth after each 50,000 steps."""
    values = {"kind": "adam", "lr": 1e-5, "beta2": 0.99, "warmup": 0, "schedule": "step", "step_every": 50_000}
    setup = fake_setup(overrides={f"optim.{key}": value for key, value in values.items()})
    declared = setup.segmenter(setup.network())
    assert (declared.kind, declared.options) == ("adam", {"betas": (0.9, 0.99)})
    assert [declared.schedule.factor(i, 120_000) for i in (0, 49_999, 50_000, 100_000)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )
    poly = fake_setup(overrides={"optim.warmup": 0, "optim.power": 0.9, "optim.horizon": 200})
    factor = poly.segmenter(poly.network()).schedule.factor
    assert [factor(i, 100) for i in (0, 100)] == [1, pytest.approx(0.5**0.9)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "step"}, "optim.schedule = step needs optim.step_every"),
        (
            {"schedule": "step", "step_every": 5, "power": 0.9, "horizon": 7},
            "optim.power and optim.horizon would change nothing under optim.schedule = step; leave out, or set back: "
            "optim.power=1.0, optim.horizon=null",
        ),
        ({"step_every": 5}, "optim.step_every would change nothing under optim.schedule = poly"),
        ({"step_gamma": 0.5}, "optim.step_gamma would change nothing under optim.schedule = poly"),
    ],
)
def test_keys_of_the_other_schedule_are_not_passed_over(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(MethodConfig, [Layer("--set", {"optim": values})])
    assert message in str(caught.value)
