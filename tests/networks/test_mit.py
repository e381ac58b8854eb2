"""The Mix Transformer against transformers' SegFormer with copied weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from udabench.errors import UsageError
from udabench.networks import mit
from udabench.networks.keymaps import mit_names
from udabench.networks.mit import MitB0, MitB5
from udabench.networks.weights import load_state


def segformer() -> nn.Module:
    """transformers' B0 with random values, and the published epsilons (it uses 1e-5 for all norms)."""
    transformers = pytest.importorskip("transformers")
    model: nn.Module = transformers.SegformerModel(transformers.SegformerConfig()).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            inside = "patch_embeddings" in name or "sequence_reduction" in name or name.endswith("self.layer_norm")
            module.eps = 1e-5 if inside else 1e-6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
    return model


def test_maps_equal_transformers() -> None:
    theirs, ours = segformer(), MitB0().eval()
    report = load_state(ours, mit_names(theirs.state_dict()), "transformers", threshold=1.0)
    assert report.unexpected == ()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(image, output_hidden_states=True).hidden_states
        maps = ours(image)
    for mine, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_sizes_that_strides_do_not_divide() -> None:
    maps = MitB0().eval()(torch.randn(1, 3, 50, 70))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 13, 18), (64, 7, 9), (160, 4, 5), (256, 2, 3)]


def test_epsilons() -> None:
    norms = {name: m.eps for name, m in MitB0().named_modules() if isinstance(m, nn.LayerNorm)}
    wide = {name for name, eps in norms.items() if eps == 1e-5}
    assert wide == {name for name in norms if name.startswith("patch_embed") or name.endswith("attn.norm")}
    assert {eps for name, eps in norms.items() if name not in wide} == {1e-6}


def test_stochastic_depth_grows_linearly() -> None:
    rates = [m.drop_path.p for m in MitB0(drop_path=0.7).modules() if isinstance(m, mit.Block)]
    assert rates == pytest.approx([0.7 * i / 7 for i in range(8)])


def test_stochastic_depth_skips_whole_samples() -> None:
    """A residual branch is left out, or divided by the chance that it stays."""
    block = mit.Block(8, 1, 1, drop_path=0.5)
    tokens, grid = torch.randn(64, 4, 8), (2, 2)
    nn.init.zeros_(block.mlp.fc2.weight)  # leaves the attention branch alone
    nn.init.zeros_(block.mlp.fc2.bias)
    branch = block.attn(block.norm1(tokens), grid)
    change = block(tokens, grid) - tokens
    kept = change.abs().amax(dim=(1, 2)) > 0
    assert 10 < int(kept.sum()) < 54
    torch.testing.assert_close(change[kept], 2 * branch[kept], rtol=1e-4, atol=1e-5)


def test_b5_has_the_published_layout() -> None:
    with torch.device("meta"):
        backbone = MitB5()
    assert [len(backbone.get_submodule(f"block{i}")) for i in (1, 2, 3, 4)] == [3, 6, 40, 3]  # type: ignore[arg-type]
    heads = [backbone.get_submodule(f"block{i}.0.attn").heads for i in (1, 2, 3, 4)]
    assert heads == [1, 2, 5, 8]
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(81.4e6, rel=0.01)  # paper, table 6
    maps = backbone(torch.zeros(1, 3, 512, 512, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(1, 64, 128, 128), (1, 128, 64, 64), (1, 320, 32, 32), (1, 512, 16, 16)]


def test_bad_options() -> None:
    with pytest.raises(UsageError, match="drop_path is 1"):
        MitB0(drop_path=1)
    with pytest.raises(UsageError, match="takes no argument"):
        MitB0("large")
