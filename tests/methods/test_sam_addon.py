"""SAM's loss around another method: by hand, where it goes, what it leaves alone, and what it cannot be put around."""

from pathlib import Path

import pytest
import torch
from torch import nn
from udabench_sam.addon.config import SAMAddonConfig
from udabench_sam.addon.method import SAMAddon
from udabench_sam.guard import Diverged

from udabench.config import MethodConfig
from udabench.errors import UsageError
from udabench.method import Loss, Method, Scalar, Shared, Stage
from udabench.network import Output
from udabench.parts.wrapper import Wrapper
from udabench.plugins import import_file, load_registry
from udabench.run.plan import Request, make_plan
from udabench.testing import check_method, fake_batch
from udabench.testing.step import run_step
from udabench.testing.subject import Subject

fakes = import_file(Path(__file__).with_name("fakes.py"))
REGISTRY = load_registry()
AROUND = [
    known.name
    for known in REGISTRY.methods
    if not issubclass(method := REGISTRY.methods.get(known.name), Wrapper) and SAMAddon.why_not_around(method) is None
]
"""Built-in methods that hand out logits."""
SMALL = {"ignored_top": 0, "ignored_bottom": 0, "entropy_after": 0}
"""For small images and few steps, where a method has it."""


class Fixed(Method):
    """Logits that stand; a stage on the source, one on both domains, a pass."""

    outputs = ("source", "mixed")

    def __init__(self, iterations: int) -> None:
        super().__init__(MethodConfig(), None)
        self.network = fakes.FakeSetup().network()
        rng = torch.Generator().manual_seed(1)
        self.z = nn.ParameterDict(
            {name: torch.randn(2, 19, 3, 4, generator=rng) for name in ("source", "mixed", "masked")}
        )
        self.iterations = iterations

    def stages(self):
        return [
            Stage("alone", self.iterations, self.step, domains=("source",)),
            Stage("pass", 0, prepare=lambda workspace: None),
            Stage("adapt-1", self.iterations, self.step),
        ]

    def step(self, batch, iteration, rng):
        outputs = {name: Output(z, (z,)) for name, z in self.z.items()}
        yield Loss("both", self.z["source"].sum() + self.z["mixed"].sum(), outputs=outputs)
        yield Loss("pull", self.z["source"].square().sum())
        return Shared(self.network, batch.target, None, None)

    def predict(self, samples):
        return self.network(samples.image).logits


class Setup(fakes.FakeSetup):
    """Gives :class:`Fixed`."""

    def method(self, name, values=None, iterations=None):
        return Fixed(iterations)


def addon(iterations=100, **values):
    return SAMAddon(SAMAddonConfig(inner="fixed", **values), Setup(iterations=iterations))


def events_of(method, stage="adapt-1"):
    step = next(each for each in method.stages() if each.name == stage).step
    steps, events = step(fake_batch(), 0, torch.Generator()), []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, end.value


def attended(z):
    """Equations 4 to 7 on the logits themselves, as they are written, in float64."""
    rows = z.detach().double().flatten(2).mT
    unit = rows / rows.norm(dim=2, keepdim=True)
    positive = (unit @ unit.mT).relu()
    return (positive / positive.sum(2, keepdim=True) @ rows).mT.reshape(z.shape)


# The loss


@pytest.mark.parametrize(("domains", "images"), [("both", ["source", "mixed"]), ("target", ["mixed"])])
def test_the_loss_and_its_gradient_by_hand(domains, images):
    """Eq 8 with L1: mean |Z'|, and -sign(Z') / numel in the gradient, beside the inner loss' own 1."""
    method = addon(module="none", sa_domains=domains, sa_weight=0.5)
    (both, pull, *sizes), returned = events_of(method)
    z = method.inner.z
    terms = {f"{name}_attention": attended(z[name]).abs().mean() for name in images}
    inner = (z["source"].sum() + z["mixed"].sum()).item()
    assert both.value.item() == pytest.approx(inner + 0.5 * float(sum(terms.values())), rel=1e-5)
    assert {name: pytest.approx(float(value), rel=1e-5) for name, value in terms.items()} == dict(both.parts)
    assert (both.trains, pull.value.item()) == ("segmenter", z["source"].square().sum().item())
    assert isinstance(returned, Shared)
    assert {event.name: event.value.item() for event in sizes if isinstance(event, Scalar)} == {
        f"logits/{name}": pytest.approx(z[name].abs().mean().item()) for name in images
    }
    both.value.backward()
    for name in ("source", "mixed"):
        pushed = -0.5 * attended(z[name]).sign() / z[name].numel() if name in images else 0
        torch.testing.assert_close(z[name].grad, torch.ones_like(z[name]) + pushed, check_dtype=False)
    assert z["masked"].grad is None


def test_the_module_is_frozen():
    method = addon()
    (both, *_), _ = events_of(method)
    both.value.backward()
    assert all(parameter.grad is None for parameter in method.attentions.parameters())


def test_diverging_logits_stop_the_run_and_nothing_else_does():
    with pytest.raises(Diverged, match=r"mean of \|Z\| of source images is 0\.8.*sa_space=probabilities"):
        events_of(addon(sa_limit=0.1))
    assert addon().advice.startswith("Settings whose logits grow less")


# Stages


def test_the_module_is_trained_first_by_a_network_of_its_own():
    """A fifth of the steps: a quarter of the inner method's."""
    method = addon(iterations=100)
    assert [(s.name, s.iterations) for s in method.stages()] == [
        ("attention", 20), ("alone", 80), ("pass", 0), ("adapt-1", 80)
    ]  # fmt: skip
    first = method.stages()[0]
    trained = {id(p) for group in first.optimizers["segmenter"].groups for p in group.parameters}
    assert trained == {id(p) for part in (method.network, method.attentions) for p in part.parameters()}
    assert first.domains == ("source",)
    assert method.network_of_record() is method.inner.network
    assert [s.iterations for s in addon(iterations=100, attention_share=1).stages()] == [50, 50, 0, 50]
    assert [s.iterations for s in addon(iterations=1).stages()] == [1, 1, 0, 1]


@pytest.mark.parametrize("values", [{"module": "none"}, {"sa_weight": 0}])
def test_without_a_module_to_train_all_steps_are_the_inner_methods(values):
    assert [stage.iterations for stage in addon(iterations=100, **values).stages()] == [100, 0, 100]


@pytest.mark.parametrize(
    ("stages", "names"), [(None, {"adapt-1"}), (["alone"], {"alone"}), (["a*"], {"alone", "adapt-1"})]
)
def test_stages_that_get_the_loss(stages, names):
    method = addon(module="none", sa_stages=stages)
    got = {name for name in ("alone", "adapt-1") if "source_attention" in events_of(method, name)[0][0].parts}
    assert got == names


def test_stages_and_images_that_are_not_there(monkeypatch):
    with pytest.raises(UsageError, match=r"fixed has no stage 'stage3'\. It trains in alone, adapt-1\."):
        addon(sa_stages=["adapt-1", "stage3"])
    with pytest.raises(UsageError, match=r"No stage of fixed would get the loss\. Name some of alone, adapt-1"):
        addon(sa_stages=[])
    monkeypatch.setattr(Fixed, "outputs", ("source",))
    with pytest.raises(UsageError, match=r"hands out no logits of target images \(it has source\)"):
        addon()
    monkeypatch.setattr(Fixed, "outputs", ())
    with pytest.raises(UsageError, match=r"fixed with these settings hands out no logits"):
        addon()


# Around the house's methods


def subject(tmp_path, method, folder, **overrides):
    known = load_registry().methods.get(overrides.get("inner", method)).Config.model_fields
    small = {key: value for key, value in SMALL.items() if key in known}
    return Subject(method, None, tmp_path / folder, small | overrides)


def stepped(opened, method, count=2):
    """Losses and parts of so many steps."""
    return [run_step(method, opened, iteration) for iteration in range(count)]


@pytest.mark.parametrize("inner", AROUND)
def test_it_acts_in_every_stage_that_is_named(tmp_path, inner):
    """On whatever a method says that it hands out."""
    one = subject(tmp_path, "sam_addon", "one", inner=inner)
    method = one.build()
    for opened in one.open(method):
        events = list(opened.stage.step(opened.batch(1), 1, torch.Generator().manual_seed(0)))
        parts = {part for event in events if isinstance(event, Loss) for part in event.parts}
        got = {part.removesuffix("_attention") for part in parts if part.endswith("_attention")}
        # CBST's rounds have one batch of both domains' images.
        wanted = {method.images[-1]} if inner == "cbst" else set(method.images)
        assert got == (wanted if opened.stage.name in method.chosen else set())


def test_a_weight_of_nothing_leaves_the_method_as_it_is(tmp_path):
    plain = subject(tmp_path, "dacs", "plain")
    around = subject(tmp_path, "sam_addon", "around", inner="dacs", sa_weight=0)
    one, other = plain.build(), around.build()
    assert stepped(plain.first(one), one) == stepped(around.first(other), other)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.inner.state_dict()[name])


def test_the_method_inside_begins_as_it_does_alone(tmp_path):
    one = subject(tmp_path, "dacs", "plain").build()
    other = subject(tmp_path, "sam_addon", "around", inner="dacs").build()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.inner.state_dict()[name])


@pytest.mark.parametrize(
    ("method", "error"),
    [("sam", "sam_addon cannot be wrapped around sam: it has this loss itself"),
     ("source_only", "cannot be wrapped around source_only: its losses do not hand out the logits"),
     ("oracle", "cannot be wrapped around oracle: its losses do not hand out the logits")],
)  # fmt: skip
def test_what_declines_it(method, error, tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match=error):
        make_plan(REGISTRY, Request(method, "gta5", overrides={"addons": "sam"}))


def test_sams_presets_are_not_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    plain = make_plan(REGISTRY, Request("dacs", "gta5")).config
    config = make_plan(REGISTRY, Request("dacs", "gta5", overrides={"addons": "sam"})).config
    assert (config.optim, config.iterations, config.network) == (plain.optim, plain.iterations, plain.network)
    with pytest.raises(UsageError, match="Unknown preset of sam_addon or dacs 'gen2'"):
        make_plan(REGISTRY, Request("dacs", "gta5", preset="gen2", overrides={"addons": "sam"}))


@pytest.mark.slow
def test_it_conforms(tmp_path):
    results = check_method(
        "sam_addon", folder=tmp_path, overrides={"inner": "dacs", "ignored_top": 0, "ignored_bottom": 0}
    )
    assert not [str(result) for result in results if result.failed]
