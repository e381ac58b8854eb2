"""Reading weight files: what is refused, what is reported, where files are looked for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from udabench.errors import CheckpointError, UsageError
from udabench.networks import weights
from udabench.networks.weights import Published, find, load_network, load_state, load_weights, random_report, read_state


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def layer() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_a_file_with_code_is_refused_and_the_code_never_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": layer().state_dict(), "extra": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"could run code.*safetensors"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "model", "both", "parallel"])
def test_usual_wrappings(tmp_path: Path, wrapping: str) -> None:
    state = dict(layer().state_dict())
    wrapped: dict[str, Any] = {
        "plain": state,
        "state_dict": {"state_dict": state, "meta": {"epoch": 3}},
        "model": {"model": state, "iteration": 7},
        "both": {"state_dict": {"model": state}},
        "parallel": {f"module.{k}": v for k, v in state.items()},
    }[wrapping]
    torch.save(wrapped, tmp_path / "w.pth")
    read = read_state(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_files_of_the_old_format_and_safetensors(tmp_path: Path) -> None:
    state = dict(layer().state_dict())
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("old.pth", "new.safetensors"):
        assert torch.equal(read_state(tmp_path / name)["0.weight"], state["0.weight"])


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_state(tmp_path / name)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no named tensors"):
        read_state(tmp_path / "w.pth")


def test_report_of_matched_missing_and_unexpected() -> None:
    """The network has 6 values: weight, bias; weight, bias, mean, variance."""
    state = dict(layer().state_dict())
    state["2.weight"] = state.pop("1.running_mean")
    report = load_state(layer(), state, "file.pth", threshold=0.8)
    assert (report.matched, report.missing, report.unexpected) == (5, ("1.running_mean",), ("2.weight",))
    assert report.coverage == pytest.approx(5 / 6)


def test_uncovered_network_fails_and_is_left_as_it_was() -> None:
    module = layer()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {k: v + 1 for k, v in before.items() if k != "0.weight"} | {"0.weight": torch.zeros(4, 5, 1, 1)}
    with pytest.raises(CheckpointError) as caught:
        load_state(module, state, "other.pth")
    for words in ("83.3%", "Missing: 0.weight", "(4, 5, 1, 1) instead of (4, 3, 1, 1)", "network.weights none"):
        assert words in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_values_that_are_not_finite_are_refused() -> None:
    state = layer().state_dict()
    state["1.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite: 1\.bias"):
        load_state(layer(), state, "broken.pth")


def test_random_weights_are_reported_as_such() -> None:
    report = random_report(layer())
    assert (report.coverage, len(report.missing)) == (0.0, 6)
    assert "random" in report.source


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's folder and torch.hub's cache, both empty; nothing can be downloaded."""
    mine, cache = tmp_path / "mine", tmp_path / "hub" / "checkpoints"
    mine.mkdir()
    cache.mkdir(parents=True)
    monkeypatch.setenv(weights.FOLDER, str(mine))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def offline(url: str, *rest: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return mine, cache


PUBLISHED = {"imagenet": Published("https://example.org/models/net.pth")}


def test_own_folder_comes_before_the_cache(places: tuple[Path, Path]) -> None:
    mine, cache = places
    assert PUBLISHED["imagenet"].path() == cache / "net.pth"  # where it would be downloaded to
    for folder in (cache, mine):
        torch.save(layer().state_dict(), folder / "net.pth")
        assert PUBLISHED["imagenet"].path() == folder / "net.pth"
    report = load_weights(layer(), "imagenet", PUBLISHED)
    assert (report.coverage, report.source) == (1.0, "net.pth")
    assert report.digest == hashlib.sha256((mine / "net.pth").read_bytes()).hexdigest()


def test_offline_says_what_to_fetch_and_where_to_put_it(places: tuple[Path, Path]) -> None:
    _, cache = places
    with pytest.raises(CheckpointError) as caught:
        load_weights(layer(), "imagenet", PUBLISHED)
    for words in ("https://example.org/models/net.pth", str(cache / "net.pth"), weights.FOLDER, "no route to host"):
        assert words in str(caught.value)


def test_download_lands_in_the_cache(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def served(url: str, target: str, *rest: object, **options: object) -> None:
        torch.save(layer().state_dict(), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", served)
    assert load_weights(layer(), "imagenet", PUBLISHED).coverage == 1.0
    assert (places[1] / "net.pth").is_file()


def test_another_file_under_a_published_name_is_refused(places: tuple[Path, Path]) -> None:
    torch.save(layer().state_dict(), places[0] / "net.pth")
    with pytest.raises(CheckpointError, match=r"SHA-256 is .*, not 0123abcd"):
        load_weights(layer(), "imagenet", {"imagenet": Published("https://example.org/net.pth", sha256="0123abcd")})


def test_missing_file_and_misspelt_name() -> None:
    with pytest.raises(CheckpointError, match="There is no weight file"):
        load_weights(layer(), "nowhere/net.pth", PUBLISHED)
    with pytest.raises(UsageError, match="Did you mean 'imagenet'"):
        load_weights(layer(), "imagenett", PUBLISHED)


def test_where_weights_would_be_read_from(places: tuple[Path, Path]) -> None:
    assert find("imagenet", PUBLISHED) == places[1] / "net.pth"
    assert find("runs/net.safetensors", PUBLISHED) == Path("runs/net.safetensors")
    assert find("none", PUBLISHED) is None


def test_whole_network(tmp_path: Path) -> None:
    torch.save({f"net.{k}": v for k, v in layer().state_dict().items()}, tmp_path / "net.pth")
    module = layer()
    report = load_network(module, tmp_path / "net.pth", lambda s: {k.removeprefix("net."): v for k, v in s.items()})
    assert report.coverage == 1
    assert torch.equal(module.state_dict()["0.weight"], read_state(tmp_path / "net.pth")["net.0.weight"])


def test_a_page_is_no_weight_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("<html>not found</html>", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no weight file: it is neither an archive nor a pickle"):
        read_state(path)
