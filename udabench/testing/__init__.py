"""Fakes and conformance checks, for this project's own tests and for every plugin author's.

``check_method("mine", fake_registry(Path("mine.py")), tmp_path)`` gives one :class:`CheckResult` a check; a
test asserts that none of them ``failed``.
"""

from udabench.testing.dataset import (
    FakeDataset,
    FakeSource,
    FakeTarget,
    delete_labels,
    write_fake_data,
    write_fake_dataset,
)
from udabench.testing.dataset_kit import check_dataset, dataset_checks
from udabench.testing.method_kit import check_method, method_checks
from udabench.testing.network import FakeNetwork
from udabench.testing.result import CheckResult
from udabench.testing.setup import FAKES, SMALL, fake_batch, fake_config, fake_registry, fake_setup

__all__ = [
    "FAKES",
    "SMALL",
    "CheckResult",
    "FakeDataset",
    "FakeNetwork",
    "FakeSource",
    "FakeTarget",
    "check_dataset",
    "check_method",
    "dataset_checks",
    "delete_labels",
    "fake_batch",
    "fake_config",
    "fake_registry",
    "fake_setup",
    "method_checks",
    "write_fake_data",
    "write_fake_dataset",
]
