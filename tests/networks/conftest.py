"""A registry of the built-in networks, and small stand-ins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from udabench import networks
from udabench.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))


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
