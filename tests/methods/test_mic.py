"""MIC: the loss by hand, where its gradient goes, and what it leaves of the method inside."""

from __future__ import annotations

import math

import pytest
import torch
import udabench_mic.method as mic_method
from torch import nn
from udabench_mic.config import MICConfig
from udabench_mic.method import MIC

from udabench.config import MethodConfig
from udabench.errors import UsageError
from udabench.hookspecs import Entry
from udabench.method import Loss, Method, Shared, Stage
from udabench.network import Network, Output
from udabench.plugins import load_registry
from udabench.run.plan import Request, make_plan
from udabench.size import Size
from udabench.testing import check_method, fake_batch, fake_registry
from udabench.testing.step import run_step
from udabench.testing.subject import Subject

REGISTRY = load_registry()
INNER = ("dacs", "daformer", "t2sda")
PLAIN = {"masked_jitter_chance": 0.0, "masked_blur_chance": 0.0}


class Constant(Network):
    """The same logits everywhere; remembers what it saw."""

    classes, output_stride, feature_channels = 3, 1, (3,)
    mean_color = (0.1, 0.2, 0.3)

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0, -0.5]))
        self.seen: torch.Tensor | None = None

    def forward(self, image, domain=None):
        self.seen = image
        count, _, height, width = image.shape
        return Output(self.bias.view(1, 3, 1, 1).expand(count, 3, height, width), (image,))

    def encode(self, image, domain=None):
        return (image,)

    def parameter_groups(self):
        return {"head": [self.bias]}


class Labels(Method):
    """Yields nothing, and returns the labels and weights that it was given."""

    shares = True

    def __init__(self, shared: Shared | None) -> None:
        super().__init__(MethodConfig(), None)
        self.shared = shared
        self.network = shared.network if shared else None

    def stages(self):
        return [Stage("adapt", 1, self.step)]

    def step(self, batch, iteration, rng):
        yield from ()
        return self.shared

    def predict(self, samples):
        return self.network(samples.image).logits


class Setup:
    crop = Size(32, 32)

    def __init__(self, inner: Method) -> None:
        self.inner = inner

    def method(self, name, values=None, iterations=None):
        return self.inner


def shared_of(label: torch.Tensor, weight: torch.Tensor) -> Shared:
    batch = fake_batch(3)
    assert batch.target is not None
    return Shared(Constant(), batch.target, label, weight)


def mic(shared: Shared | None, **values: object) -> MIC:
    return MIC(MICConfig(inner="labels", **{**PLAIN, **values}), Setup(Labels(shared)))


def events_of(method: MIC, seed: int = 0):
    step = method.stages()[0].step(fake_batch(3), 0, torch.Generator().manual_seed(seed))
    events = []
    while True:
        try:
            events.append(next(step))
        except StopIteration as end:
            return events, end.value


def half_labelled() -> Shared:
    """Left half class 1 with weight 0.5, right half class 2 with weight 0.25, a quarter of it unknown."""
    label = torch.ones(2, 32, 32, dtype=torch.int64)
    label[:, :, 16:] = 2
    label[:, :16, 16:] = 255
    weight = torch.full((2, 32, 32), 0.5)
    weight[:, :, 16:] = 0.25
    return shared_of(label, weight)


@pytest.mark.parametrize(("average", "share"), [("all", 1.0), ("valid", 0.75)])
def test_the_loss_by_hand(average, share):
    """Half of the pixels: -0.5 log p1; a quarter: -0.25 log p2; a quarter unknown."""
    shared = half_labelled()
    (loss, _), returned = events_of(mic(shared, masked_weight=2.0, masked_ce_avg=average))
    total = sum(math.exp(bias) for bias in (0.0, 1.0, -0.5))
    p1, p2 = math.exp(1.0) / total, math.exp(-0.5) / total
    expected = 2.0 * (0.5 * -0.5 * math.log(p1) + 0.25 * -0.25 * math.log(p2)) / share
    assert isinstance(loss, Loss)
    assert (loss.name, loss.trains) == ("masked", "segmenter")
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-6)
    assert returned is shared


def test_the_network_sees_blocks_of_the_unmixed_target():
    shared = half_labelled()
    events_of(mic(shared, block=8))
    seen, image = shared.network.seen, shared.samples.image
    assert seen is not None
    fill = torch.tensor(Constant.mean_color).view(1, 3, 1, 1).expand_as(image)
    kept = (seen == image).all(1)
    assert torch.equal(torch.where(kept[:, None], image, fill), seen)
    assert 0 < float(kept.float().mean()) < 1
    blocks = kept.view(2, 4, 8, 4, 8).transpose(2, 3).flatten(3)
    assert bool((blocks.all(3) | ~blocks.any(3)).all())


def test_colours_are_changed_before_blocks_are_hidden():
    shared = half_labelled()
    events_of(mic(shared, masked_jitter_chance=1.0, mask_ratio=0.7))
    seen, image = shared.network.seen, shared.samples.image
    assert seen is not None
    hidden = (seen == torch.tensor(Constant.mean_color).view(1, 3, 1, 1)).all(1)
    assert 0.3 < float(hidden.float().mean()) < 1
    assert not torch.equal(seen.permute(0, 2, 3, 1)[~hidden], image.permute(0, 2, 3, 1)[~hidden])


@pytest.mark.parametrize(("crop", "block"), [(1024, 64), (512, 32), (128, 8), (8, 1)])
def test_blocks_are_a_sixteenth_of_the_crop(crop, block):
    setup = Setup(Labels(half_labelled()))
    setup.crop = Size(crop, 2 * crop)
    assert MIC(MICConfig(inner="labels"), setup).block == block
    assert MIC(MICConfig(inner="labels", block=48), setup).block == 48


def test_a_stage_that_shares_nothing_is_left_alone():
    assert events_of(mic(None)) == ([], None)


def test_ranks_draw_for_the_whole_batch(monkeypatch):
    """The second of two processes with two images each has the last two masks of one process with four."""
    shared = half_labelled()
    image = shared.samples.image
    whole = mic(shared, block=4)
    doubled = shared._replace(samples=shared.samples._replace(image=torch.cat([image, image])))
    alone = whole.hide_blocks(doubled, torch.Generator().manual_seed(7))
    monkeypatch.setattr(mic_method, "world_size", lambda: 2)
    monkeypatch.setattr(mic_method, "own", lambda rows: rows[len(rows) // 2 :])
    second = whole.hide_blocks(shared, torch.Generator().manual_seed(7))
    assert torch.equal(second, alone[2:])
    assert not torch.equal(second, alone[:2])


def subject(tmp_path, method: str, name: str, **values: object) -> Subject:
    return Subject(method, None, tmp_path / name, {"ignored_top": 0, "ignored_bottom": 0, **values})


def stepped(one: Subject, steps: int = 3) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    method = one.build()
    opened = one.first(method)
    losses = [run_step(method, opened, iteration) for iteration in range(steps)]
    return {key.removeprefix("inner."): value for key, value in method.state_dict().items()}, losses


@pytest.mark.parametrize("inner", INNER)
def test_without_weight_the_method_inside_does_what_it_does_alone(tmp_path, inner):
    alone, _ = stepped(subject(tmp_path, inner, "alone"))
    off, _ = stepped(subject(tmp_path, "mic", "off", inner=inner, masked_weight=0.0))
    assert set(alone) == set(off)
    assert all(torch.equal(alone[key], off[key]) for key in alone)


@pytest.mark.parametrize("inner", INNER)
def test_the_inner_losses_of_a_step_are_those_of_the_method_alone(tmp_path, inner):
    before, (losses, *_) = stepped(subject(tmp_path, inner, "alone"), 1)
    after, (masked, *_) = stepped(subject(tmp_path, "mic", "around", inner=inner), 1)
    assert masked.pop("masked") > 0
    assert masked == losses
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("network", ["fake", "hrda:fake"])
@pytest.mark.parametrize("inner", INNER)
def test_the_gradient_reaches_the_student_alone(tmp_path, inner, network):
    """All of it: on HRDA the attention and the detail too."""
    one = subject(tmp_path, "mic", "around", inner=inner, **{"network.name": network})
    method = one.build()
    opened = one.first(method)
    for event in opened.stage.step(opened.batch(0), 0, torch.Generator().manual_seed(0)):
        if isinstance(event, Loss) and event.name == "masked":
            event.value.backward()
    trained = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert trained == {f"inner.student.{name}" for name, _ in method.inner.student.named_parameters()}


@pytest.fixture
def _no_user_file(tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))


def plan(inner: str | None = None, method: str = "mic", **request):
    overrides = {} if inner is None else {"inner": inner}
    return make_plan(REGISTRY, Request(method, "gta5", overrides=overrides, **request))


INSIDE = "settings.inner_settings."


def own(config) -> dict[str, object]:
    """MIC's own values."""
    return {
        key.removeprefix("settings."): value
        for key, value, _ in config.leaves()
        if key.startswith("settings.") and not key.startswith(INSIDE)
    }


def rest(config) -> dict[str, object]:
    """All other values, by the keys that they have without MIC."""
    taken = {f"settings.{key}" for key in own(config)} if len(config.methods) > 1 else set()
    return {
        key.replace(INSIDE, "settings."): value
        for key, value, _ in config.leaves()
        if key not in {"method", "preset", *taken}
    }


@pytest.mark.usefixtures("_no_user_file")
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("preset", [None, "quick"])
def test_the_method_inside_keeps_its_recipe(inner, preset):
    """But for MIC's own row, which is DAFormer on HRDA."""
    named = "hrda-paper" if (inner, preset) == ("daformer", None) else preset
    assert rest(plan(inner, preset=preset).config) == rest(plan(method=inner, preset=named).config)


@pytest.mark.usefixtures("_no_user_file")
def test_the_papers_rows():
    default = plan().config
    assert default.methods == ("mic", "daformer")
    assert (default.network.name, default.data.crop) == ("hrda:mit_b5-daformer", Size(1024, 1024))
    assert own(default) == {
        "inner": "daformer", "inner_preset": "hrda-paper", "block": None, "masked_weight": 1.0, "mask_ratio": 0.7,
        "masked_jitter_strength": 0.2, "masked_jitter_chance": 0.8, "masked_blur_chance": 0.5, "masked_ce_avg": "all",
        "masked_norms": "joint",
    }  # fmt: skip
    assert plan(preset="mic-paper").config.hash == default.hash
    small = plan(preset="daformer").config
    assert (small.network.name, small.data.crop) == ("mit_b5-daformer", Size(512, 512))
    assert plan(preset="t2sda").config.methods == ("mic", "t2sda")
    assert plan(preset="quick").config.settings.block * 512 == 32 * 128


@pytest.mark.usefixtures("_no_user_file")
def test_what_cannot_be_wrapped_is_told_by_name():
    with pytest.raises(UsageError, match=r"mic around mic: no method wraps itself"):
        plan("mic")
    with pytest.raises(UsageError, match=r"around source_only: it makes no pseudo-labels.*dacs, daformer, .*t2sda"):
        plan("source_only")
    with pytest.raises(UsageError, match=r"Unknown method 'dafromer'\. Did you mean 'daformer'"):
        plan("dafromer")


class Declines(Labels):
    """Takes no network at all."""

    @classmethod
    def why_not(cls, task, network):
        return f"it has no use for {network}."


@pytest.mark.usefixtures("_no_user_file")
def test_the_method_inside_may_decline():
    registry = fake_registry()
    registry.methods.add("declines", Entry(Declines), "a test")
    request = Request("mic", "gta5", preset="quick", overrides={"inner": "declines"})
    with pytest.raises(UsageError, match=r"^declines cannot run gta5-cityscapes with lite0: it has no use for lite0\."):
        make_plan(registry, request)


def test_a_method_that_makes_no_pseudo_labels_now_is_told_when_it_is_built(tmp_path):
    generalizing = {
        "inner": "t2sda", "generalize": True, "translator": "color_jitter", "feature_distance": 0, "reweight": "none",
        "negative_sampling": "source",
    }  # fmt: skip
    with pytest.raises(UsageError, match="t2sda with these settings has no pseudo-labels"):
        subject(tmp_path, "mic", "generalizing", **generalizing).build()


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNER)
def test_it_conforms(tmp_path, inner):
    overrides = {"inner": inner, "ignored_top": 0, "ignored_bottom": 0}
    results = check_method("mic", folder=tmp_path, overrides=overrides)
    assert not [str(result) for result in results if result.failed]


class Normed(Constant):
    """With a batch norm before the constant."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=0.5)

    def forward(self, image, domain=None):
        return super().forward(self.norm(image), domain)


@pytest.mark.parametrize(("norms", "moves"), [("joint", True), ("apart", False)])
def test_masked_images_may_leave_no_trace_in_the_norms(norms, moves):
    shared = half_labelled()._replace(network=Normed())
    method = mic(shared, masked_norms=norms)
    method.train()
    events_of(method)
    norm = shared.network.norm
    assert (float(norm.running_mean.abs().sum()) > 0) is moves
    assert norm.momentum == 0.5
    # Normalised by their own statistics either way.
    seen = shared.network.seen
    assert seen is not None
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
