"""A registry of the built-in networks, and small stand-ins."""

from __future__ import annotations

import pytest
import torch

from udabench import networks
from udabench.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    found = Registry()
    for kind in ("backbones", "heads", "networks"):
        for name, entry in getattr(networks, f"register_{kind}")().items():
            found.catalogue(kind).add(name, entry, "networks")
    return found


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
