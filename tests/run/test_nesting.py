"""Methods in methods in methods: whose values count, where they come from, and what a run folder keeps of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from udabench.errors import UsageError
from udabench.hookspecs import Entry
from udabench.registry import Registry
from udabench.resolve import Layer, Resolved, layer_of, resolve
from udabench.run.addons import unfold
from udabench.run.nesting import Nest, find_methods, find_presets

METHOD = """
from typing import Any
from udabench.config import MethodConfig, WrapperConfig, setting
from udabench.method import Method
from udabench.parts.wrapper import Wrapper

class {kind}Config({base}Config):
    {inner}
    {key}: float = setting(1.0, "a value", origin="assumed", ge=0, le=10, unit="apples")
    shared: int = setting(0, "a value that all have", origin="paper Eq {number}")
    options: dict[str, Any] = setting(dict, "a mapping")

class {kind}({base}):
    Config = {kind}Config
    def stages(self): return []
    def predict(self, samples): raise NotImplementedError
"""
USUAL = 'inner: str = setting("core", "method that is wrapped")'
METHODS = {
    "core": ("Core", "Method", "pass", "heat"),
    "other": ("Other", "Method", "pass", "cold"),
    "shell": ("Shell", "Wrapper", USUAL, "shine"),
    "crust": ("Crust", "Wrapper", "pass", "salt"),
}
Make = Callable[..., Registry]


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``methods(core={"quick": yaml}, ...)``: a registry of four methods with these presets."""

    def make(**presets: dict[str, str]) -> Registry:
        registry = Registry()
        monkeypatch.syspath_prepend(str(tmp_path))
        for number, (name, (kind, base, inner, key)) in enumerate(METHODS.items()):
            package = tmp_path / f"toy_{name}"
            (package / "presets").mkdir(parents=True)
            (package / "__init__.py").touch()
            text = METHOD.format(kind=kind, base=base, inner=inner, key=key, number=number)
            (package / "method.py").write_text(text, encoding="utf-8")
            for preset, yaml in presets.get(name, {}).items():
                (package / "presets" / f"{preset}.yaml").write_text(yaml, encoding="utf-8")
            for module in (f"toy_{name}", f"toy_{name}.method"):
                monkeypatch.delitem(sys.modules, module, raising=False)
            registry.methods.add(name, Entry(f"toy_{name}.method:{kind}"), f"toy_{name}")
        return registry

    return make


def run(registry: Registry, name: str, preset: str | None = None, **said: Any) -> tuple[Resolved, Nest]:
    layers = [Layer("command line", {"method": name, **{key.replace("__", "."): v for key, v in said.items()}})]
    nest = find_presets(registry, name, preset, layers)
    return resolve(nest.settings, [*map(layer_of, nest.presets), *layers]), nest


def test_values_of_all_methods_are_leaves(methods: Make) -> None:
    found, nest = run(methods(), "crust", inner="shell", heat=2, shine=3, salt=4)
    leaves = {key: value for key, value, _ in found.config.leaves() if key.startswith("settings.")}
    inner, innermost = "settings.inner_settings.", "settings.inner_settings.inner_settings."
    assert leaves == {
        "settings.inner": "shell", "settings.inner_preset": None, "settings.salt": 4, "settings.shared": 0,
        "settings.options": {},
        f"{inner}inner": "core", f"{inner}inner_preset": None, f"{inner}shine": 3, f"{inner}shared": 0,
        f"{inner}options": {},
        f"{innermost}heat": 2, f"{innermost}shared": 0, f"{innermost}options": {},
    }  # fmt: skip
    assert found.config.methods == ("crust", "shell", "core")
    assert [method.__name__ for method in nest.methods] == ["Crust", "Shell", "Core"]
    assert found.origins[f"{innermost}heat"] == "command line"
    assert found.origins[f"{innermost}shared"] == "paper Eq 0"


def test_inner_values_make_the_experiment(methods: Make) -> None:
    registry = methods()
    hashes = {
        run(registry, "shell", **said)[0].config.hash
        for said in ({}, {"heat": 2}, {"inner_settings__shared": 1}, {"shared": 1}, {"inner": "other"})
    }
    assert len(hashes) == 5
    assert "settings.inner_settings.heat" in run(registry, "shell")[0].assumed


@pytest.mark.parametrize(
    "said",
    [
        {"heat": 3},
        {"inner_settings__heat": 3},
        {"settings__inner_settings__heat": 3},
        {"inner_settings": {"heat": 3}},
        {"settings": {"inner_settings": {"heat": 3}}},
        {"settings__inner_settings": {"heat": 3}},
    ],
    ids=lambda said: next(iter(said)),
)
def test_ways_to_say_an_inner_value(methods: Make, said: dict[str, Any]) -> None:
    assert run(methods(), "shell", **said)[0].config.model_dump()["settings"]["inner_settings"]["heat"] == 3


def test_a_short_key_is_the_outermost_methods(methods: Make) -> None:
    found = run(methods(), "shell", shared=5, options__a=1, inner_settings__options__b=2)[0].config
    settings = found.model_dump()["settings"]
    assert (settings["shared"], settings["inner_settings"]["shared"]) == (5, 0)
    assert (settings["options"], settings["inner_settings"]["options"]) == ({"a": 1}, {"b": 2})


def test_problems_of_inner_values_are_explained_with_all_others(methods: Make) -> None:
    with pytest.raises(UsageError) as caught:
        run(methods(), "shell", inner_settings__haet=1, heat=11, shine=-1, optim__lrr=1)
    message = str(caught.value)
    assert "Unknown key 'inner_settings.haet' (command line). Did you mean 'settings.inner_settings.heat'?" in message
    assert "settings.inner_settings.heat = 11 apples: input should be less than or equal to 10" in message
    assert "settings.shine = -1 apples" in message
    assert "optim.lr" in message


QUICK = {
    "core": {
        "default": "{origin: paper Tab 1, values: {optim: {lr: 0.1}, settings: {heat: 2, shared: 2}}}",
        "quick": "{origin: paper Tab 2, values: {optim: {power: 0.7}, heat: 3}}",
    },
    "shell": {
        "default": "{origin: paper Tab 3, values: {settings: {shine: 4, inner_settings: {shared: 4}}}}",
        "quick": "{origin: paper Tab 5, values: {optim: {beta2: 0.5}, settings: {shine: 5}}}",
    },
}


def test_presets_of_the_inner_method_lie_under_those_of_the_same_name(methods: Make) -> None:
    found, nest = run(methods(**QUICK), "shell", "quick")
    said = [(preset.name, preset.of) for preset in nest.presets]
    assert said == [("default", "core"), ("default", ""), ("quick", "core"), ("quick", "")]
    config, inner = found.config, found.config.model_dump()["settings"]["inner_settings"]
    assert (inner["heat"], inner["shared"], config.model_dump()["settings"]["shine"]) == (3, 4, 5)
    assert (config.optim.power, config.optim.beta2) == (0.7, 0.5)
    # The common preset says 2e-3 in quick; it lies over the inner default, and once only.
    assert (config.optim.lr, config.network.name) == (2e-3, "lite0")
    origins = found.origins
    assert origins["settings.inner_settings.heat"] == "paper Tab 2"
    assert origins["settings.inner_settings.shared"] == "paper Tab 3"
    assert origins["optim.power"] == "paper Tab 2"


def test_without_a_preset_the_defaults_lie_in_order(methods: Make) -> None:
    registry = methods(**QUICK)
    found, nest = run(registry, "shell")
    assert [(preset.name, preset.of) for preset in nest.presets] == [("default", "core"), ("default", "")]
    inner = found.config.model_dump()["settings"]["inner_settings"]
    assert (inner["heat"], inner["shared"], found.config.optim.lr) == (2, 4, 0.1)
    assert run(registry, "shell", "default")[0].config.hash == found.config.hash


def test_what_a_preset_says_of_another_inner_method_is_left_out(methods: Make) -> None:
    registry = methods(shell={"default": "{values: {settings: {inner: core, shine: 4, inner_settings: {heat: 9}}}}"})
    assert run(registry, "shell")[0].config.model_dump()["settings"]["inner_settings"]["heat"] == 9
    other = run(registry, "shell", inner="other")[0].config.model_dump()["settings"]
    assert (other["shine"], other["inner_settings"]) == (4, {"cold": 1.0, "shared": 0, "options": {}})


def test_a_preset_may_name_the_inner_methods(methods: Make) -> None:
    registry = methods(
        core={"warm": "{values: {settings: {heat: 5}}}", "hot": "{values: {settings: {heat: 9}}}"},
        shell={"default": "{values: {settings: {inner_preset: warm}}}"},
    )

    def heat(preset: str | None, **said: Any) -> tuple[float, str | None]:
        settings = run(registry, "shell", preset, **said)[0].config.model_dump()["settings"]
        return settings["inner_settings"]["heat"], settings["inner_preset"]

    assert heat(None) == (5, "warm")
    assert heat("hot") == (9, "hot")
    assert heat(None, inner_preset="hot") == (9, "hot")
    assert heat("quick", inner_preset="hot") == (9, "hot")
    assert heat("quick") == (1, "quick")
    assert run(registry, "shell", inner="other")[0].config.model_dump()["settings"]["inner_preset"] is None
    with pytest.raises(UsageError, match=r"Unknown preset of core 'ht'\. Did you mean 'hot'"):
        heat(None, inner_preset="ht")
    with pytest.raises(UsageError, match=r"Unknown preset of shell or core 'ht'\. Did you mean 'hot'"):
        heat("ht")


def test_inner_itself_may_come_from_a_preset_of_an_inner_method(methods: Make) -> None:
    registry = methods(
        shell={"quick": "{values: {settings: {inner: other, inner_settings: {cold: 7}}}}"},
        crust={"default": "{values: {settings: {inner: shell}}}"},
    )
    config = run(registry, "crust", "quick")[0].config
    assert config.methods == ("crust", "shell", "other")
    assert config.model_dump()["settings"]["inner_settings"]["inner_settings"]["cold"] == 7


def test_a_run_folder_gives_the_same_configuration(methods: Make) -> None:
    registry = methods(**QUICK)
    config = run(registry, "crust", "quick", inner="shell", heat=8)[0].config
    layers = [Layer("run folder", config.model_dump(mode="json"))]
    nest = find_methods(registry, "crust", layers)
    again = resolve(nest.settings, layers).config
    assert again.model_dump() == config.model_dump()
    assert again.hash == config.hash
    assert again.methods == ("crust", "shell", "core")


@pytest.mark.parametrize(
    ("name", "said", "error"),
    [
        ("crust", {}, r"crust wraps another method\. Name it with --set inner="),
        ("shell", {"inner": "shell"}, "shell around shell: no method wraps itself"),
        ("crust", {"inner": "shell", "inner_settings__inner": "crust"}, "crust around shell around crust: no method"),
        ("shell", {"inner": "coer"}, r"Unknown method 'coer'\. Did you mean 'core'"),
    ],
)
def test_what_cannot_be_nested(methods: Make, name: str, said: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        run(methods(), name, **said)


# Add-ons


def beside(registry: Registry, name: str, addons: Any, preset: str | None = None, **said: Any) -> Resolved:
    """``--method name --set addons=...``"""
    values = {"method": name, "addons": addons, **{key.replace("__", "."): value for key, value in said.items()}}
    layers = [Layer("command line", {key: value for key, value in values.items() if value is not None})]
    outermost, unfolded = unfold(registry, name, preset, layers)
    nest = find_presets(registry, outermost, preset, unfolded)
    return resolve(nest.settings, [*map(layer_of, nest.presets), *unfolded])


@pytest.mark.parametrize("addons", ["shell,crust", "shell, crust", ["shell", "crust"]])
def test_add_ons_are_the_wrappers_around_a_method(methods: Make, addons: Any) -> None:
    registry = methods(**QUICK)
    said = {"heat": 3, "shine": 4, "salt": 5, "optim__lr": 0.2}
    found = beside(registry, "core", addons, "quick", **said)
    same = run(registry, "crust", "quick", inner="shell", inner_settings__inner="core", **said)[0]
    assert found.config.methods == ("crust", "shell", "core")
    assert found.config.title == "core + shell + crust"
    assert found.config.model_dump() == same.config.model_dump()
    assert found.config.hash == same.config.hash
    assert found.origins["method"] == found.origins["settings.inner"] == "addons, command line"


@pytest.mark.parametrize("addons", [None, [], ""])
def test_no_add_ons_are_no_wrappers(methods: Make, addons: Any) -> None:
    registry = methods()
    assert beside(registry, "core", addons, heat=2).config.hash == run(registry, "core", heat=2)[0].config.hash


@pytest.mark.parametrize(
    "said",
    [
        {"shared": 3, "options__a": 1},
        {"settings__shared": 3, "settings__options__a": 1},
        {"settings": {"shared": 3, "options": {"a": 1}}},
    ],
    ids=["short", "full", "nested"],
)
def test_what_is_said_of_the_method_stays_the_methods(methods: Make, said: dict[str, Any]) -> None:
    """Also where an add-on has a key of that name."""
    settings = beside(methods(), "core", "shell", **said).config.model_dump()["settings"]
    assert (settings["shared"], settings["options"]) == (0, {})
    assert (settings["inner_settings"]["shared"], settings["inner_settings"]["options"]) == (3, {"a": 1})


def test_an_add_on_around_a_wrapper(methods: Make) -> None:
    found = beside(methods(), "shell", "crust", inner="other", cold=2, inner_settings__shared=4).config
    assert found.methods == ("crust", "shell", "other")
    inner = found.model_dump()["settings"]["inner_settings"]["inner_settings"]
    assert (inner["cold"], inner["shared"]) == (2, 4)


def test_a_wrapper_may_be_registered_under_another_name(methods: Make) -> None:
    registry = methods()
    registry.methods.add("other_addon", Entry("toy_shell.method:Shell"), "toy")
    config = beside(registry, "core", "other").config
    assert (config.methods, config.title) == (("other_addon", "core"), "core + other")
    assert beside(registry, "core", "other_addon").config.hash == config.hash


def test_a_preset_may_name_add_ons(methods: Make) -> None:
    registry = methods(
        core={"row": "{extends: base, values: {shine: 7, settings: {heat: 6}}}", "base": "{values: {addons: [shell]}}"},
        shell={"default": "{values: {shine: 2}}"},
    )
    config = beside(registry, "core", None, "row").config
    settings = config.model_dump()["settings"]
    assert (config.methods, settings["shine"], settings["inner_settings"]["heat"]) == (("shell", "core"), 7, 6)
    assert run(registry, "shell", "row", inner="core")[0].config.hash == config.hash
    with pytest.raises(UsageError, match=r"Unknown key 'shine' \(preset row\)"):
        beside(registry, "core", [], "row")
    with pytest.raises(UsageError, match="Preset row of core needs the add-ons shell: say --method core --preset row"):
        run(registry, "crust", "row", inner="core")


@pytest.mark.parametrize(
    ("addons", "said", "error"),
    [
        ("shel", {}, r"Unknown add-on 'shel'\. Did you mean 'shell'\? Known: crust, shell\."),
        ("other", {}, r"addons: other is no add-on, it wraps no other method\. Add-ons: crust, shell\."),
        ("shell,crust,shell", {}, r"addons names shell twice\. Name each add-on once\."),
        (3, {}, "addons = 3: names of add-ons are wanted"),
        ({"shell": 1}, {}, "names of add-ons are wanted"),
        (["shell", None], {}, "names of add-ons are wanted"),
        ("shell", {"inner": "other"}, r"inner = other \(command line\): with these add-ons shell is around core\."),
        ("shell", {"heat": 11}, "settings.inner_settings.heat = 11 apples"),
        ("shell", {"haet": 1}, r"Unknown key 'haet' \(command line\)"),
    ],
)
def test_what_is_no_list_of_add_ons(methods: Make, addons: Any, said: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        beside(methods(), "core", addons, **said)
