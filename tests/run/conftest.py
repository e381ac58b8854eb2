"""Runs of a method of generations, shared by the tests of what becomes of them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from generations import Home


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Data, and a finished run of one generation, which no test changes."""
    return Home(tmp_path_factory.mktemp("generations"))
