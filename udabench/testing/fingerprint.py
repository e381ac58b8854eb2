"""What a data set gives, as one number: to be computed here and in another interpreter."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from udabench.data.locate import open_dataset
from udabench.dataset import Dataset
from udabench.testing.setup import fake_registry


def sample_names(dataset: Dataset) -> Sequence[str]:
    """The first, the middle and the last sample."""
    names = dataset.names
    return [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the names, the identity and some samples."""
    digest = sha256(f"{dataset.digest()} {dataset.identity()}".encode())
    for name in sample_names(dataset):
        digest.update(dataset.read_image(name).tobytes())
        if dataset.has_label(name):
            digest.update(dataset.read_label(name).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Print the fingerprint of each split, a line each; the arguments come as JSON on the standard input."""
    arguments: Mapping[str, Any] = json.load(sys.stdin)
    registry = fake_registry(*map(Path, arguments["plugins"]))
    for split in arguments["splits"]:
        roots = {name: Path(root) for name, root in arguments["roots"].items()}
        print(fingerprint(open_dataset(registry, arguments["name"], split, roots, arguments["options"])))
