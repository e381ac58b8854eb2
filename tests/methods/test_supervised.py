"""source_only and oracle."""

from pathlib import Path

import pytest
import torch
from udabench_oracle.method import Oracle
from udabench_source_only.method import SourceOnly

from udabench.labels import CITYSCAPES19
from udabench.plugins import import_file

fakes = import_file(Path(__file__).with_name("fakes.py"))


@pytest.mark.parametrize(("kind", "domain"), [(SourceOnly, "source"), (Oracle, "target")])
@pytest.mark.parametrize("space", [CITYSCAPES19, fakes.ELEVEN])
@pytest.mark.parametrize("distorted", [False, True])
def test_one_step_trains_the_whole_network(kind, domain, space, distorted):
    config = kind.Config(photometric_distortion=distorted)
    method = kind(config, fakes.FakeSetup(space))
    losses, _, _ = fakes.run_step(method, fakes.batch(len(space), target_labels=kind.target_labels))
    assert list(losses) == [domain]
    grads = fakes.gradients(method)
    assert set(grads) == {name for name, _ in method.named_parameters()}
    assert all(g.isfinite().all() for g in grads.values())


def test_only_the_oracle_may_see_target_labels():
    assert Oracle.target_labels
    assert not SourceOnly.target_labels
    assert SourceOnly(SourceOnly.Config(), fakes.FakeSetup()).stages()[0].domains == ("source",)
    oracle = Oracle(Oracle.Config(), fakes.FakeSetup())
    assert oracle.stages()[0].domains == ("target",)
    with pytest.raises(ValueError, match="no labelled target"):
        fakes.run_step(oracle, fakes.batch())


def test_average_over_all_pixels_is_the_smaller_loss():
    values = {}
    for average in ("all", "valid"):
        method = SourceOnly(SourceOnly.Config(ce_avg=average, photometric_distortion=False), fakes.FakeSetup())
        values[average] = fakes.run_step(method, fakes.batch())[0]["source"].value.item()
    known = (fakes.batch().source.label != 255).float().mean().item()
    assert values["all"] == pytest.approx(values["valid"] * known, rel=1e-5)


def test_panels_are_pictures():
    method = SourceOnly(SourceOnly.Config(), fakes.FakeSetup())
    _, others, _ = fakes.run_step(method, fakes.batch())
    shapes = {panel.name: panel.picture().shape for panel in others}
    assert shapes == {"image": (2, 3, 32, 48), "label": (2, 32, 48), "prediction": (2, 32, 48)}


def test_prediction_is_before_upsampling():
    method = SourceOnly(SourceOnly.Config(), fakes.FakeSetup()).eval()
    assert method.predict(fakes.batch().target).shape == (2, 19, 8, 12)
    assert list(method.predictors()) == ["student"]
    assert torch.equal(method.predictors()["student"](fakes.batch().target), method.predict(fakes.batch().target))
