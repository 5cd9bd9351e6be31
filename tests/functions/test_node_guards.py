"""What holds the processes of ``"use node"`` actions: how they are launched, what is reported, what the launcher lets through."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from convex_backend.functions import guards
from convex_backend.functions.runner_process import ANNOUNCE, RunnerCommand, node_command

LAUNCHER = Path(guards.__file__).with_name("node_launcher.py")


def test_command(tmp_path: Path) -> None:
    """All of Node with a bounded heap; the package and its dependencies to read, its temporary directory to write."""
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "main.mjs").touch()
    command = node_command(tmp_path, "packages/a", "dependencies/x", memory_megabytes=512, write=("scratch",))
    assert command.flags == ("--max-old-space-size=512", "--no-warnings")
    assert {str(tmp_path), "packages/a", "dependencies/x"} < set(command.read)
    assert command.write == ("packages/a/tmp", "scratch")
    line = command.launch()
    assert Path(line[3]) == LAUNCHER
    assert line[line.index("--") + 1 :] == [*command.read, "--", *command.write, "--", *command.argv]


def test_report() -> None:
    """The steps that a Node action has on purpose no more of are not said to be missing."""
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), b"limits\t\nparent death\t\nnew privileges\t\nfiles\tneeds Linux\n", ANNOUNCE.size)
        report = RunnerCommand("node", "main.mjs", (), True, True).report(file.fileno())
    assert set(report.active) == {"limits", "parent_death", "no_new_privileges"}
    assert report.missing == {"file_access": "needs Linux", "other_user": "the server does not run as root"}
    assert report.weakened


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
def test_launcher(tmp_path: Path) -> None:
    """Behind the launcher a program may read and write what it was given and the system's files, and nothing else."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
        (folder / "file").write_text("text")
    with tempfile.TemporaryFile() as report:
        # The report goes to descriptor 4; the limit on data is left out with the flag that names it.
        script = (
            f"cat {mine}/file; echo more > {mine}/new && cat {mine}/new; cat {other}/file; "
            f"echo x > {other}/new; head -c 1 /etc/passwd > /dev/null && echo system"
        )
        done = subprocess.run(
            [
                *("bash", "-c", 'exec 4<&"$0" "$@"', str(report.fileno())),
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), "-1", "-1", "256"),
                *("--", "--", str(mine), "--", "/bin/sh", "-c", script),
            ],
            pass_fds=(report.fileno(),),
            capture_output=True,
            text=True,
            timeout=20,
        )
        found = guards.read_report(report.fileno(), ANNOUNCE.size, network=True, node=True)
    if "file_access" in found.missing:
        pytest.skip(f"no Landlock here: {found.missing['file_access']}")
    assert done.stdout == "textmore\nsystem\n"
    assert done.stderr.count("ermission denied") == 2
    assert not (other / "new").exists()
