"""Merging, validation, origins, hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from udabench.config import MethodConfig, RunConfig, setting
from udabench.errors import UsageError
from udabench.resolve import Layer, parse_overrides, read_yaml, resolve


class Settings(MethodConfig):
    tau: float = setting(0.2, "temperature", origin="paper Tab S7", gt=0)
    width: int = setting(4, "width", origin="assumed", unit="channels", ge=1)


def test_later_layers_win_and_origins_follow() -> None:
    layers = [Layer("preset quick", {"tau": 0.5, "optim.lr": 0.1}), Layer("command line", {"settings.tau": 0.7})]
    resolved = resolve(Settings, layers)
    assert resolved.config.settings.tau == 0.7  # type: ignore[attr-defined]
    assert resolved.config.optim.lr == 0.1
    assert resolved.origins["settings.tau"] == "command line"
    assert resolved.origins["optim.lr"] == "preset quick"
    assert resolved.origins["optim.momentum"] == "DAFormer code"
    assert resolved.assumed == ("settings.width",)


def test_nested_and_dotted_keys_mean_the_same() -> None:
    nested = resolve(Settings, [Layer("a", {"data": {"crop": "64x32"}})]).config
    dotted = resolve(Settings, [Layer("a", {"data.crop": "64x32"})]).config
    assert nested.model_dump() == dotted.model_dump()
    assert (nested.data.crop.height, nested.data.crop.width) == (32, 64)


def test_every_problem_is_reported_at_once() -> None:
    values = {"tau": -1, "widht": 3, "iterations": 0, "optim.lrr": 1}
    with pytest.raises(UsageError) as caught:
        resolve(Settings, [Layer("command line", values)])
    message = str(caught.value)
    assert "Unknown key 'widht' (command line). Did you mean 'settings.width'?" in message
    assert "Did you mean 'optim.lr'?" in message
    assert "settings.tau = -1: input should be greater than 0" in message
    assert "iterations = 0 iterations: input should be greater than or equal to 1" in message


def test_data_set_folders_have_a_short_key() -> None:
    config = resolve(Settings, [Layer("command line", {"data.gta5": "/somewhere"})], ["gta5"]).config
    assert config.data.roots == {"gta5": Path("/somewhere")}


def test_data_set_folders_add_up() -> None:
    layers = [Layer("user", {"data": {"roots": {"gta5": "/a", "synthia": "/s"}}}), Layer("c", {"data.gta5": "/b"})]
    roots = resolve(Settings, layers, ["gta5", "synthia"]).config.data.roots
    assert roots == {"gta5": Path("/b"), "synthia": Path("/s")}


def test_crop_must_fit() -> None:
    with pytest.raises(UsageError, match=r"data\.crop 512x512 does not fit data\.source_size 256x128"):
        resolve(Settings, [Layer("data set", {"data.source_size": "256x128"})])


def test_hash_ignores_seed_paths_device_and_logging_only() -> None:
    base = resolve(Settings, []).config
    same = {"seed": 3, "data.roots.gta5": "/x", "engine.device": "cpu", "engine.log_every": 7, "data.workers": 2}
    assert resolve(Settings, [Layer("c", same)]).config.hash == base.hash
    for key, value in {"iterations": 9, "tau": 0.3, "engine.precision": "bfloat16", "data.flip": 0.0}.items():
        assert resolve(Settings, [Layer("c", {key: value})]).config.hash != base.hash, key


def test_configuration_survives_json() -> None:
    config = resolve(Settings, [Layer("c", {"tau": 0.4, "data.crop": "64x32"})]).config
    again = resolve(Settings, [Layer("run folder", config.model_dump(mode="json"))]).config
    assert again.model_dump() == config.model_dump()
    assert again.hash == config.hash


def test_every_value_says_what_it_is() -> None:
    for key, _, field in RunConfig().leaves():
        assert field.description, key


@pytest.mark.parametrize("pair", ["tau", "=3"])
def test_overrides_need_a_key_and_a_value(pair: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_overrides([pair])


def test_overrides_are_yaml() -> None:
    assert parse_overrides(["a=3", "b=[1, 2]", "c=none", "d=true"]) == {"a": 3, "b": [1, 2], "c": "none", "d": True}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "must hold keys and values"),
        ("optim:\n  lr: 1\n  power: 2\n  lr: 3\n", r"'lr' stands twice.*line 4"),
        ("{a: 1, b: {c: 1, c: 1}}", "'c' stands twice"),
    ],
)
def test_bad_yaml_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_yaml(path)


def test_the_same_key_in_two_mappings_is_none_twice(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {lr: 1, power: 2}\nother:\n  <<: *base\n  lr: 3\n")
    assert read_yaml(path) == {"base": {"lr": 1, "power": 2}, "other": {"lr": 3, "power": 2}}


@pytest.mark.parametrize("key", ["data.source_batch", "data.flip", "evaluate.limit", "tau", "width"])
def test_truth_is_no_number(key: str) -> None:
    for value in (True, False):
        with pytest.raises(UsageError, match="input should be a number, not true or false"):
            resolve(Settings, [Layer("command line", {key: value})])


def test_truth_is_truth_where_it_is_asked_for() -> None:
    config = resolve(Settings, [Layer("command line", {"evaluate.flip": True, "options.width": True})]).config
    assert config.evaluate.flip
    assert config.network.options == {"width": True}


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        read_yaml(tmp_path / "none.yaml")


def test_an_ambiguous_short_key_names_the_full_ones() -> None:
    with pytest.raises(
        UsageError, match=r"'flip' is ambiguous\. Write data\.flip or evaluate\.flip\. \(command line\)"
    ):
        resolve(Settings, [Layer("command line", {"flip": 0})])


def test_a_key_of_the_method_goes_before_the_sections() -> None:
    class Mirroring(MethodConfig):
        flip: bool = setting(False, "mirror", origin="assumed")

    config = resolve(Mirroring, [Layer("command line", {"flip": True})]).config
    assert config.settings.flip  # type: ignore[attr-defined]
    assert config.data.flip == 0.5


def test_mappings_are_set_by_key_and_add_up() -> None:
    layers = [
        Layer("preset", {"network.options": {"norm": "train", "width": 4}}),
        Layer("file", {"network": {"options": {"head.dropout": 0.1}}}),
        Layer("command line", {"network.options.norm": "frozen", "options.head.width": 8}),
    ]
    resolved = resolve(Settings, layers)
    expected = {"norm": "frozen", "width": 4, "head.dropout": 0.1, "head.width": 8}
    assert resolved.config.network.options == expected
    assert resolved.origins["network.options"] == "command line"


def test_a_value_that_is_no_mapping_has_no_keys() -> None:
    with pytest.raises(UsageError, match=r"Unknown key 'optim\.lr\.head'"):
        resolve(Settings, [Layer("command line", {"optim.lr.head": 1})])


@pytest.mark.parametrize("empty", [{}, None])
def test_an_empty_mapping_clears_what_was_said_before(empty: object) -> None:
    layers = [Layer("preset", {"network.options": {"norm": "train"}}), Layer("file", {"network.options": empty})]
    assert resolve(Settings, layers).config.network.options == {}
