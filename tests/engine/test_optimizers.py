"""The optimisers' clock: rates by hand, gradients only where named, loss scaling, stored state."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import DEVICE
from torch import nn
from torch.utils.checkpoint import checkpoint

from udabench.engine.optimizers import Optimizers, build, make_scaler
from udabench.errors import CheckpointError, PluginError
from udabench.method import Group, Loss, Optimizer, Stage
from udabench.schedules import LinearSchedule, PolySchedule, StepSchedule


def declared(*modules: nn.Module, kind: str = "sgd", lr: float = 0.1, **more: object) -> Optimizer:
    groups = [Group(tuple(module.parameters()), lr * 10**i) for i, module in enumerate(modules)]
    return Optimizer(kind, groups, **more)  # type: ignore[arg-type]


def optimizers(precision: str = "float32", iterations: int = 10, **named: Optimizer) -> Optimizers:
    stage = Stage("main", iterations, lambda *_: iter(()), named)  # type: ignore[arg-type,return-value]
    return Optimizers(stage, make_scaler(precision, DEVICE))


def test_rates_follow_warm_up_times_polynomial_decay() -> None:
    """lr 0.1 and 1.0, warm-up of 4 from 0.5, power 2 over 10 iterations: worked out by hand."""
    segmenter = declared(nn.Linear(1, 1), nn.Linear(1, 1), schedule=PolySchedule(4, 0.5, 2.0))
    built = optimizers(segmenter=segmenter)
    by_hand = {0: 0.5 * 1.0, 2: 0.75 * 0.64, 4: 0.36, 5: 0.25, 9: 0.01}
    for iteration, factor in by_hand.items():
        built.begin(iteration)
        rates = [group["lr"] for group in built.built["segmenter"].param_groups]
        assert rates == pytest.approx([0.1 * factor, 1.0 * factor])
        assert built.rates() == pytest.approx({"segmenter": 0.1 * factor})


def test_the_horizon_may_differ_from_the_stage() -> None:
    built = optimizers(iterations=10, a=declared(nn.Linear(1, 1), schedule=PolySchedule(horizon=20)))
    built.begin(5)
    assert built.rates()["a"] == pytest.approx(0.1 * 0.75)
    short = optimizers(iterations=10, a=declared(nn.Linear(1, 1), schedule=PolySchedule(horizon=4)))
    short.begin(9)
    assert short.rates()["a"] == 0


def test_a_step_of_sgd_by_hand() -> None:
    """d/dw (w x)^2 = 2 w x^2 = 2 * 3 * 4 = 24; w - 0.1 * 24 = 0.6."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 3.0)
    built = optimizers(a=declared(module, schedule=PolySchedule(power=0)))
    built.begin(0)
    built.backward(Loss("l", module(torch.full((1, 1), 2.0)).square().sum(), "a"))
    built.finish()
    assert module.weight.item() == pytest.approx(0.6)


def test_gradients_reach_only_the_named_parameters() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    built = optimizers(a=declared(first), b=declared(second))
    before = [p.clone() for p in second.parameters()]
    built.begin(0)
    built.backward(Loss("through both", second(first(torch.ones(1, 2))).sum(), "a"))
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in second.parameters())
    built.finish()
    assert all(torch.equal(old, new) for old, new in zip(before, second.parameters(), strict=True))
    built.begin(1)
    assert all(p.grad is None for p in first.parameters())
    built.backward(Loss("to both", second(first(torch.ones(1, 2))).sum(), ("a", "b")))
    assert all(p.grad is not None for p in [*first.parameters(), *second.parameters()])


def test_frozen_parameters_of_a_named_optimiser_stay() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    built = optimizers(a=declared(module))
    built.begin(0)
    built.backward(Loss("l", module(torch.ones(1, 2)).sum(), "a"))
    built.finish()
    assert module.bias.grad is None


def test_an_update_steps_at_once_and_only_once() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    built = optimizers(a=declared(module, schedule=PolySchedule(power=0)))
    built.begin(0)
    built.backward(Loss("l", module(torch.ones(1, 1)).sum(), "a"))
    built.update("a")
    assert module.weight.item() == pytest.approx(0.9)
    built.finish()
    assert module.weight.item() == pytest.approx(0.9)
    built.begin(1)
    built.backward(Loss("l", module(torch.ones(1, 1)).sum(), "a"))
    built.update("a")
    built.backward(Loss("l", module(torch.ones(1, 1)).sum(), "a"))
    built.finish()
    assert module.weight.item() == pytest.approx(0.7)


def test_losses_of_one_optimiser_add_up() -> None:
    """d/dw (2 w + 3 w) = 5."""
    module = nn.Linear(1, 1, bias=False)
    built = optimizers(a=declared(module))
    built.begin(0)
    built.backward(Loss("two", 2 * module.weight.sum(), "a"))
    built.backward(Loss("three", 3 * module.weight.sum(), "a"))
    assert module.weight.grad is not None
    assert module.weight.grad.item() == 5


def test_the_scaler_scales_steps_and_survives_optimisers_without_gradient() -> None:
    """Gradient 1 becomes 65536 before the step, and the weight moves by lr alone."""
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(first.weight, 1.0)
    built = optimizers("float16", a=declared(first, schedule=PolySchedule(power=0)), b=declared(second))
    built.begin(0)
    built.finish()
    built.begin(0)
    built.backward(Loss("l", first.weight.sum(), "a"))
    assert first.weight.grad is not None
    assert first.weight.grad.item() == 65536
    built.finish()
    assert first.weight.item() == pytest.approx(0.9)
    built.begin(1)
    built.backward(Loss("l", first.weight.sum() * 1e38, "a"))
    built.finish()
    assert first.weight.item() == pytest.approx(0.9), "an overflow is skipped"
    assert built.scaler.get_scale() == 32768
    restored = make_scaler("float16", DEVICE, built.scaler.state_dict())
    assert restored.get_scale() == 32768


def test_float16_cannot_step_twice() -> None:
    module = nn.Linear(1, 1)
    built = optimizers("float16", a=declared(module))
    built.begin(0)
    built.backward(Loss("l", module.weight.sum(), "a"))
    built.update("a")
    built.backward(Loss("l", module.weight.sum(), "a"))
    with pytest.raises(PluginError, match="after its Update"):
        built.finish()


def test_what_breaks_the_contract_is_named() -> None:
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    built = optimizers(a=declared(module), b=declared(other))
    built.begin(0)

    def refused(match: str, value: torch.Tensor, trains: str = "a") -> None:
        with pytest.raises(PluginError, match=match):
            built.backward(Loss("mine", value, trains))

    refused(r"names the optimiser 'c'; stage 'main' has a, b", module.weight.sum(), "c")
    refused(r"must be a scalar tensor; it is shape \(2, 2\)", module.weight)
    refused("depends on no parameter", torch.tensor(3.0))
    refused("reached no parameter of b", module(torch.ones(1, 2)).sum(), "b")
    with pytest.raises(PluginError, match="An Update names the optimiser 'c'"):
        built.update("c")
    hidden = module(torch.ones(1, 2))
    built.backward(Loss("one", hidden.square().sum(), "a"))
    refused("shares a graph", hidden.square().sum())
    module.requires_grad_(False)
    refused("no parameter requires a gradient", other.weight.sum())


def test_a_zero_without_gradient_is_nothing_to_train_on() -> None:
    module = nn.Linear(1, 1)
    built = optimizers(a=declared(module))
    built.begin(0)
    built.backward(Loss("no pixel", torch.zeros(()), "a"))
    built.finish()
    assert module.weight.grad is None


def test_reentrant_checkpointing_is_refused() -> None:
    encoder, head = nn.Linear(2, 2), nn.Linear(2, 1)
    built = optimizers(a=declared(encoder, head))
    built.begin(0)
    image = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(PluginError, match="use_reentrant=False"):
        built.backward(Loss("l", head(checkpoint(encoder, image, use_reentrant=True)).sum(), "a"))
    built.backward(Loss("l", head(checkpoint(encoder, image, use_reentrant=False)).sum(), "a"))
    assert encoder.weight.grad is not None


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_state_goes_on_where_it_was(kind: str) -> None:
    options = {"momentum": 0.9} if kind == "sgd" else {}

    def steps(built: Optimizers, module: nn.Module, iterations: range) -> None:
        for iteration in iterations:
            built.begin(iteration)
            built.backward(Loss("l", module(torch.full((1, 2), 1.0 + iteration)).square().sum(), "a"))
            built.finish()

    def fresh() -> tuple[nn.Module, Optimizers]:
        torch.manual_seed(0)
        module = nn.Linear(2, 2)
        return module, optimizers(a=declared(module, kind=kind, lr=0.01, options=options))

    whole, built = fresh()
    steps(built, whole, range(6))
    first, one = fresh()
    steps(one, first, range(3))
    second, two = fresh()
    second.load_state_dict(first.state_dict())
    two.load({key: value.clone() for key, value in one.state().items()})
    steps(two, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_state_of_another_network_is_refused() -> None:
    built = optimizers(a=declared(nn.Linear(2, 2), kind="adam"))
    with pytest.raises(CheckpointError, match=r"exp_avg of parameter 0 has shape \(3, 3\)"):
        built.load({"a.0.exp_avg": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match="holds an optimiser 'z'"):
        built.load({"z.0.exp_avg": torch.zeros(2, 2)})


def test_what_cannot_be_built_is_named() -> None:
    with pytest.raises(PluginError, match=r"Optimiser 'a' of stage 's' \(sgd\) cannot be built"):
        build("a", declared(nn.Linear(1, 1), options={"speed": 3}), "s")
    with pytest.raises(PluginError, match="cannot be built"):
        build("a", Optimizer("sgd", []), "s")
    with pytest.raises(PluginError, match="is a 'lion'"):
        build("a", declared(nn.Linear(1, 1), kind="lion"), "s")


def test_a_step_schedule_by_hand() -> None:
    """Every 3: 1 1 1 / 0.5 0.5 0.5 / 0.25."""
    factors = [StepSchedule(3, 0.5).factor(i, 7) for i in range(7)]
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_a_step_schedule_warms_up_as_the_polynomial_one() -> None:
    """From a half over 4: 0.5, 0.625, 0.75, 0.875; times 1 1 1 / 0.5 0.5 0.5."""
    factors = [StepSchedule(3, 0.5, warmup=4, warmup_ratio=0.5).factor(i, 7) for i in range(6)]
    assert factors == [0.5, 0.625, 0.75, 0.4375, 0.5, 0.5]


def test_a_linear_schedule_by_hand() -> None:
    """Half of 8 at the full rate, then in steps of a quarter to 0, which the end would have."""
    assert [LinearSchedule().factor(i, 8) for i in range(9)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert [LinearSchedule(0).factor(i, 4) for i in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [LinearSchedule(1).factor(i, 4) for i in range(5)] == [1, 1, 1, 1, 1]
