"""One server with the chat app for the tests that do not need one of their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, convex, free_port, make_app, running


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


@pytest.fixture(scope="session")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with the app of actions and HTTP actions, and a site port (``site_port``)."""
    app = make_app(tmp_path_factory.mktemp("actions"), "actions")
    site_port = free_port()
    with running(tmp_path_factory.mktemp("server"), "--site-port", str(site_port)) as server:
        server.site_port = site_port
        convex(app, server, "dev", "--once")
        server.app = app
        yield server


@pytest.fixture(scope="session")
def hasty_actions(actions: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the same app, on which actions may take two seconds."""
    folder = tmp_path_factory.mktemp("hasty")
    for file in actions.folder.glob("convex_local_backend.sqlite3*"):
        shutil.copy(file, folder)
    with running(folder, "--action-timeout", "2") as server:
        yield server
