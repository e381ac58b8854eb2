"""source_only and oracle."""

from pathlib import Path

import pytest
import torch
from udabench_oracle.method import Oracle
from udabench_source_only.method import SourceOnly

from udabench.errors import UsageError
from udabench.labels import CITYSCAPES19
from udabench.plugins import import_file
from udabench.translate.weather import Weather

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


@pytest.mark.parametrize(("translated", "factor"), [("beside", 0.5), ("instead", 0.0)])
def test_translated_images_join_the_originals_or_take_their_place(translated, factor):
    values = {"photometric_distortion": False, "ce_avg": "all"}
    change = {"translator": "weather", "translator_options": {"kinds": ["fog"]}, "translated": translated}
    method, plain = (SourceOnly(SourceOnly.Config(**values, **more), fakes.FakeSetup()).eval() for more in (change, {}))
    data = fakes.batch()
    fog = Weather(["fog"])(data.source.image, None, torch.Generator().manual_seed(3))
    foggy = data._replace(source=data.source._replace(image=fog))
    expected = factor * _loss(plain, data) + (1 - factor) * _loss(plain, foggy)
    torch.testing.assert_close(_loss(method, data), expected)


def _loss(method, data):
    return next(method.step(data, 0, torch.Generator().manual_seed(3))).value


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"translator": "fda"}, "source_only has no target images, which translator 'fda' needs"),
        ({"translator": "fog"}, "Unknown translator 'fog'"),
        ({"translator_options": {"kinds": ["fog"]}}, r"translator_options has no effect without settings\.translator"),
    ],
)
def test_translators_that_cannot_be(values, error):
    with pytest.raises(UsageError, match=error):
        SourceOnly(SourceOnly.Config(**values), fakes.FakeSetup())


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
