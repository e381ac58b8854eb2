"""What a method can reach through its setup."""

from __future__ import annotations

import inspect

import pytest
import torch

from udabench.errors import CheckpointError, UsageError
from udabench.method import Setup
from udabench.parts.self_trainer import SelfTrainer
from udabench.parts.supervised import Supervised
from udabench.parts.wrapper import Wrapper
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
