"""Scale factors as configs write them."""

from __future__ import annotations

import pytest

from udabench.config import DataConfig, MethodConfig
from udabench.data.randomness import rng_at
from udabench.resolve import Layer, parse_overrides, resolve
from udabench.scales import Scales
from udabench.size import Size


@pytest.mark.parametrize(
    ("written", "factors", "between"),
    [
        ("0.5-1.5", (0.5, 1.5), True),
        (" 0.8 - 1.2 ", (0.8, 1.2), True),
        ([0.8, 1, 1.2], (0.8, 1.0, 1.2), False),
        ("0.8, 1, 1.2", (0.8, 1.0, 1.2), False),
        ([0.123456789], (0.123456789,), False),
    ],
)
def test_what_is_written_comes_back(written: object, factors: tuple[float, ...], between: bool) -> None:
    scales = Scales.parse(written)
    assert (scales.factors, scales.between, scales.least) == (factors, between, factors[0])
    stored = DataConfig(scale=written).model_dump(mode="json")["scale"]
    assert DataConfig(scale=stored).scale == scales


@pytest.mark.parametrize("written", [1.2, "1.5-0.5", [], "", "big", True, [True], [0.8, 20], "0-1", {"a": 1}, [None]])
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"scale factors are written 0\.5-1\.5|does not ascend"):
        DataConfig(scale=written)


def test_the_command_lines_form_reaches_the_configuration() -> None:
    config = resolve(MethodConfig, [Layer("--set", parse_overrides(["data.scale=0.5-1.5"]))]).config
    assert config.data.scale == Scales((0.5, 1.5), between=True)
    assert config.hash != resolve(MethodConfig, []).config.hash


def test_factors_are_drawn_uniformly() -> None:
    choices = [Scales.parse([0.8, 1, 1.2]).draw(rng_at(i)) for i in range(600)]
    assert {c: choices.count(c) // 50 in (3, 4) for c in (0.8, 1.0, 1.2)} == {0.8: True, 1.0: True, 1.2: True}
    between = [Scales.parse("0.5-1.5").draw(rng_at(i)) for i in range(600)]
    assert 0.5 <= min(between) < 0.51
    assert 1.49 < max(between) < 1.5
    assert sum(between) / 600 == pytest.approx(1, abs=0.04)


def test_a_scaled_size_is_rounded() -> None:
    assert Size(720, 1280).scaled(0.8) == Size(576, 1024)
    assert Size(5, 3).scaled(0.5) == Size(2, 2)
    assert Size(1, 1).scaled(0.1) == Size(1, 1)
