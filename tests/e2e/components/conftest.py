"""One server for each app of this folder. Their packages are in ``package.json`` here, apart from those of ``tests/apps``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, convex, free_port, make_app, running

APPS = Path(__file__).parent


@contextmanager
def deployed(factory: pytest.TempPathFactory, name: str, typed: bool = True) -> Iterator[Server]:
    """A server with a site port to which the app *name* has been pushed.

    :param typed: whether the CLI checks the types of the app first, which takes most of the time.
    """
    app = make_app(factory.mktemp(name), name, APPS)
    site_port = free_port()
    with running(factory.mktemp(f"{name}_server"), "--site-port", str(site_port)) as server:
        server.site_port = site_port
        server.app = app
        convex(app, server, "dev", "--once", *(() if typed else ("--typecheck", "disable")), timeout=180)
        yield server


def until(look: Callable[[], Any], check: Callable[[Any], bool], seconds: float = 20.0) -> Any:
    """Look again and again. :returns: the first answer that *check* likes. :raises AssertionError: there is none."""
    deadline = time.monotonic() + seconds
    while not check(found := look()):
        assert time.monotonic() < deadline, f"still {found}"
        time.sleep(0.05)
    return found
