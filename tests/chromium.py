"""A headless Chromium: the one that is installed, or on x86-64 Linux the one inside the npm package of ``tests/browser``."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import npm_cache

_PACKAGE = Path(__file__).parent / "browser"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Unpacks into the temporary folder; with the variable it unpacks libraries too that a bare system lacks.
_UNPACK = 'import chromium from "@sparticuz/chromium"; await chromium.executablePath();'


def _on_path() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def can_be_had() -> bool:
    """Whether there is one for this machine."""
    return _on_path() is not None or (platform.system(), platform.machine()) == ("Linux", "x86_64")


def _command() -> tuple[list[str], dict[str, str]]:
    """How to start it, and with which environment; installs it first if need be."""
    environment = dict(os.environ)
    found = _on_path()
    if found is not None:
        return [found, "--headless"], environment
    packages = npm_cache.installed(_PACKAGE)
    folder = packages / "unpacked"
    with open(packages / "lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            unpack = {**npm_cache.node_environment(), "TMPDIR": str(folder), "AWS_LAMBDA_JS_RUNTIME": "nodejs24.x"}
            command = [npm_cache.NODE, "--input-type=module", "--eval", _UNPACK]
            subprocess.run(command, cwd=packages, env=unpack, check=True, timeout=120)
            (folder / "complete").touch()
    environment["LD_LIBRARY_PATH"] = str(folder / "al2023" / "lib")
    environment["FONTCONFIG_PATH"] = str(folder / "fonts")
    return [str(folder / "chromium"), "--headless=shell"], environment


@contextmanager
def showing(page: str, folder: Path, *flags: str) -> Iterator[None]:
    """A browser that shows *page* (an address).

    :param folder: for its profile and its log, ``browser.log``. :param flags: more of the command line.
    """
    command, environment = _command()
    command += [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}",
        *flags,
        page,
    ]
    with open(folder / "browser.log", "wb") as log:
        browser = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait(10)
