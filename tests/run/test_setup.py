"""What a method can reach through its setup."""

from __future__ import annotations

import inspect

from udabench.method import Setup
from udabench.testing import fake_setup


def test_a_setup_shows_what_the_contract_names_and_no_more() -> None:
    contract = {name for name, _ in inspect.getmembers(Setup) if not name.startswith("_")}
    assert {name for name in dir(fake_setup()) if not name.startswith("_")} == contract
