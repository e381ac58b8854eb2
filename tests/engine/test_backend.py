"""Memory format and compilation, without compiling."""

from __future__ import annotations

import torch
from engine_fakes import DEVICE, config_of
from torch import Tensor, nn

from udabench.engine.backend import place
from udabench.network import Network, Output


class Inner(Network):
    def __init__(self, inside: Network | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.inside = inside

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        return Output(self.conv(image), ())

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        return (image,)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": list(self.parameters())}


def test_networks_are_compiled_in_place_and_the_outermost_only() -> None:
    holder = nn.ModuleDict({"student": Inner(Inner()), "plain": nn.Conv2d(3, 3, 3)})
    keys = list(holder.state_dict())
    for _ in range(2):
        place(holder, config_of(compile=True).engine, DEVICE)
    student = holder["student"]
    assert student._compiled_call_impl is not None
    assert student.inside._compiled_call_impl is None
    assert holder["plain"]._compiled_call_impl is None
    assert list(holder.state_dict()) == keys


def test_nothing_is_compiled_or_reordered_unasked() -> None:
    network = nn.ModuleList([Inner()])
    place(network, config_of().engine, DEVICE)
    assert network[0]._compiled_call_impl is None
    assert network[0].conv.weight.is_contiguous()
    place(network, config_of(channels_last=True).engine, DEVICE)
    assert network[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
