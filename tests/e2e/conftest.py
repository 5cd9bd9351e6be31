"""One server with the chat app for the tests that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, convex, make_app, running


@pytest.fixture(scope="session")
def chat_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chat app, able to run the CLI."""
    return make_app(tmp_path_factory.mktemp("apps"))


@pytest.fixture(scope="session")
def chat(chat_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server to which the chat app has been pushed by ``convex dev --once``."""
    with running(tmp_path_factory.mktemp("server")) as server:
        convex(chat_app, server, "dev", "--once")
        yield server
