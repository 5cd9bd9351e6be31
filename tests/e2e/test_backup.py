"""``convex-backend backup`` beside a server that writes, and a server that is started in the copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from convex_backend import cli
from tests.e2e.harness import ADMIN_KEY, ROOT, Server, running

COUNTER = """\
import { mutation, query } from "./_generated/server";
export const add = mutation(async (ctx) => {
  const row = await ctx.db.query("counts").first();
  if (row === null) await ctx.db.insert("counts", { value: 1 });
  else await ctx.db.patch(row._id, { value: row.value + 1 });
  await ctx.db.insert("log", {});
});
export const state = query(async (ctx) => {
  const row = await ctx.db.query("counts").first();
  return [row?.value ?? 0, (await ctx.db.query("log").collect()).length];
});
export const upload = mutation((ctx) => ctx.storage.generateUploadUrl());
export const url = query((ctx, { id }) => ctx.storage.getUrl(id));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in a folder with the default names and an app that counts."""
    with running(tmp_path_factory.mktemp("original")) as server:
        status, _, answer = server.request(
            "POST", "/api/deploy", {"adminKey": ADMIN_KEY, "functions": {"counter.js": COUNTER}}
        )
        assert status == 200, answer
        yield server


def backup(server: Server, target: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in the server's folder, as an operator would."""
    command = [sys.executable, "-m", "convex_backend.cli", "backup", str(target)]
    return subprocess.run(
        command, cwd=server.folder, env=server_environment(), capture_output=True, text=True, timeout=60
    )


def server_environment() -> dict[str, str]:
    """Nothing of ours that names a deployment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVEX", "INSTANCE"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def test_a_backup_beside_a_busy_server_is_one_moment_of_it(server: Server, tmp_path: Path) -> None:
    """Counter and log agree in the copy, whatever was written meanwhile; the file, and keys made before, are good there."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            server.value("mutation", "counter:add")

    upload = server.value("mutation", "counter:upload").removeprefix(server.url)
    _, _, answer = server.request("POST", upload, b"contents", {"Content-Type": "text/plain"})
    file = json.loads(answer)["storageId"]
    key = subprocess.run(
        [sys.executable, "-m", "convex_backend.cli", "admin-key"],
        cwd=server.folder,
        env=server_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    server.value("mutation", "counter:add")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        before = server.value("query", "counter:state")[0]
        done = backup(server, tmp_path / "copy")
        after = server.value("query", "counter:state")[0]
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"backed up to {tmp_path / 'copy'} in ")
    assert done.stdout.endswith("1 file of 0.0 MB\n")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    with running(tmp_path / "copy") as restored:
        value, rows = restored.value("query", "counter:state")
        assert before <= value == rows <= after
        url = restored.value("query", "counter:url", {"id": file})
        status, _, content = restored.request("GET", "/api/storage/" + url.rpartition("/")[2])
        assert (status, content) == (200, b"contents")
        status, _, _ = restored.request("GET", "/api/push_history", headers={"Authorization": f"Convex {key}"})
        assert status == 200
        restored.value("mutation", "counter:add")
        assert restored.value("query", "counter:state") == [value + 1, rows + 1]


def test_a_directory_that_holds_something_is_left_alone(server: Server, tmp_path: Path) -> None:
    """One line, exit code 1, and nothing is written."""
    (tmp_path / "mine").write_text("x")
    done = backup(server, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"convex-backend: {tmp_path} exists already and is not an empty directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_backup_that_fails_leaves_nothing(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No credentials, no database, no URL: one line that says where was looked, and no half a copy."""
    storage = str(server.folder / "convex_local_storage")
    for arguments, text in (
        (["--local-storage", str(tmp_path / "none")], "no credentials in"),
        (["--local-storage", storage, "--persistence", f"sqlite://{tmp_path / 'none'}"], "there is no database"),
        (["--local-storage", storage, "--persistence", "x"], "--persistence must be sqlite://PATH"),
        (["--local-storage", storage, "--persistence", "sqlite://:memory:"], "--persistence must name a file"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["backup", str(tmp_path / "copy"), *arguments])
        assert ended.value.code == 1
        assert text in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_command_says_what_is_wrong_with_its_url(capsys: pytest.CaptureFixture[str]) -> None:
    """A URL without scheme is one line, not a trace."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--url", "localhost:3210", "--admin-key", "k"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "convex-backend: --url (or CONVEX_SELF_HOSTED_URL) must be a URL such as http://127.0.0.1:3210, not 'localhost:3210'\n"
    )
