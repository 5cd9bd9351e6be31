"""A real server as a child process, and the official clients and CLI against it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import npm_cache

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "convex-self-hosted|0011223344556677"


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """``twistd -n convex-backend`` in a folder of its own.

    :param folder: working directory; data of an earlier run in it is used again.
    :param options: more command-line options.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.options = options
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        #: More environment variables of the child.
        self.environment: dict[str, str] = {}
        #: Set by fixtures that have one: the port of HTTP actions, and the folder of the app that was pushed.
        self.site_port = 0
        self.app = folder

    def start(self, wait: bool = True) -> None:
        """Start the child and wait until it answers."""
        folder = str(self.folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONVEX", "INSTANCE"))}
        environment["PYTHONPATH"] = str(ROOT)
        environment |= self.environment
        command = [str(Path(sys.executable).parent / "twistd"), "-n"]
        command += ["--pidfile=", "convex-backend", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--site-port", "0", "--admin-key", ADMIN_KEY, *self.options]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 20) -> None:
        """Return when ``/version`` answers. :raises AssertionError: it ended or did not answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.text()}")
            try:
                with urllib.request.urlopen(f"{self.url}/version", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise AssertionError(f"the server does not answer:\n{self.text()}")

    def text(self) -> str:
        """What the server printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self, sig: int = signal.SIGTERM, seconds: float = 25) -> int:
        """Send *sig* and wait for the end. :returns: the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """``kill -9``, the server only: its children see their socket close."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request; a body that is not bytes is sent as JSON. :returns: status, headers, body."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def call(self, kind: str, path: str, args: Any = None, admin: bool = False) -> Any:
        """``POST /api/KIND``; :returns: the decoded answer."""
        headers = {"Authorization": f"Convex {ADMIN_KEY}"} if admin else {}
        body = {"path": path, "format": "convex_encoded_json", "args": [args or {}]}
        status, _, answer = self.request("POST", f"/api/{kind}", body, headers)
        assert status == 200, (status, answer)
        return json.loads(answer)

    def value(self, kind: str, path: str, args: Any = None) -> Any:
        """The value of a call that must succeed."""
        answer = self.call(kind, path, args)
        assert answer["status"] == "success", answer
        return answer["value"]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Server]:
    """A started server, killed at the end if it still runs."""
    server = Server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)


def make_app(folder: Path, name: str = "chat", packages: Path = npm_cache.APPS) -> Path:
    """A copy of a sample app that can run the CLI: ``node_modules`` is a link to the shared install.

    :param packages: the folder of the app, with the ``package.json`` of what it uses.
    """
    target = folder / name
    shutil.copytree(packages / name, target, ignore=shutil.ignore_patterns("_generated", "node_modules"))
    (target / "node_modules").symlink_to(npm_cache.installed(packages) / "node_modules")
    return target


def cli_environment(server: Server) -> dict[str, str]:
    """The environment of a CLI that works on *server*."""
    environment = npm_cache.node_environment()
    environment["CONVEX_SELF_HOSTED_URL"] = server.url
    environment["CONVEX_SELF_HOSTED_ADMIN_KEY"] = ADMIN_KEY
    return environment


def cli_command(app: Path, *arguments: str) -> list[str]:
    """The command line of the CLI that is installed in *app*."""
    return [str(npm_cache.NODE), str(app / "node_modules" / "convex" / "bin" / "main.js"), *arguments]


def convex(
    app: Path,
    server: Server,
    *arguments: str,
    check: bool = True,
    timeout: float = 60,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run the official CLI in *app*. :returns: stdout and stderr together.

    :param environment: added to that of the process.
    """
    try:
        done = subprocess.run(
            cli_command(app, *arguments),
            cwd=app,
            env={**cli_environment(server), **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        printed = b"".join(part if isinstance(part, bytes) else b"" for part in (late.stdout, late.stderr))
        shown = printed.decode(errors="replace")
        raise AssertionError(f"convex {' '.join(arguments)} did not end:\n{shown}\n{server.text()[-4000:]}") from None
    output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if check and done.returncode != 0:
        raise AssertionError(
            f"convex {' '.join(arguments)} ended with {done.returncode}:\n{output}\n{server.text()[-4000:]}"
        )
    if not check:
        output += f"\n[exit {done.returncode}]"
    return output


def node(app: Path, script: str, server: Server, *arguments: str, timeout: float = 120) -> list[Any]:
    """Run an ES module of ``tests/e2e/clients`` in *app*. :returns: the JSON values that it printed, one a line."""
    target = app / f"{Path(script).stem}.mjs"
    shutil.copy(Path(__file__).parent / "clients" / script, target)
    done = subprocess.run(
        [npm_cache.NODE, target, server.url, *arguments],
        cwd=app,
        env=npm_cache.node_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}\n{server.text()[-4000:]}"
        )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", '"'))]
