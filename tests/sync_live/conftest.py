"""The bank app, and one server with it for the tests that neither kill nor fill it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, running
from tests.sync_live.bank import copy_of, make_bank_app, open_bank


@pytest.fixture(scope="session")
def bank_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bank app, able to run the CLI and client scripts."""
    return make_bank_app(tmp_path_factory.mktemp("apps"))


@pytest.fixture(scope="session")
def bank_data(bank_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stopped server with the bank opened; start servers in copies of it."""
    folder = tmp_path_factory.mktemp("bank_data")
    with running(folder) as server:
        open_bank(bank_app, server)
        server.stop()
    return folder


@pytest.fixture(scope="session")
def bank(bank_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with the bank opened."""
    with running(copy_of(bank_data, tmp_path_factory.mktemp("bank"))) as server:
        yield server
