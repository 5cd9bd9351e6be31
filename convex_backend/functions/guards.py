"""What holds a JavaScript child (F8): how it is launched, which guards are in place, and where an operator sees it.

::

    launch() ──spawn──> sandbox_launcher.py ──execve──> node --permission …
                              │ one line for each step, fd 4
                              ▼
    GuardBoard <── GuardReport <── read_report() when the child says hello, before it has seen any code of users
"""

from __future__ import annotations

import functools
import os
import platform
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from prometheus_client import CollectorRegistry, Gauge
from twisted.logger import Logger

from convex_backend.functions import seccomp

REPORT_BYTES = 4096
UNPRIVILEGED = 65534
"""User and group of the children when there is no user ``nobody`` to ask for its ids."""
_ISOLATE_FILES = 256
_ACTION_FILES = 4096
_LAUNCHER = str(Path(__file__).with_name("sandbox_launcher.py"))
_NODE_LAUNCHER = str(Path(__file__).with_name("node_launcher.py"))
_NODE_STEPS = ("file_access", "no_new_privileges", "other_user", "limits", "parent_death")
_NOT_ROOT = "the server does not run as root"
_NOT_LAUNCHED = "the launcher did not run"

# Label of the metric: (the launcher's name for it, words for the log); node itself has the permission model, by its flags.
_PERMISSION = ("permission_model", "permission model")
_STEPS = {
    "no_network": ("system calls", "no network (seccomp)"),
    "system_calls": ("system calls", "no other processes (seccomp)"),
    "file_access": ("files", "files by list (Landlock)"),
    "no_new_privileges": ("new privileges", "no new privileges"),
    "other_user": ("user", "user {uid}"),
    "limits": ("limits", "resource limits"),
    "parent_death": ("parent death", "ends with the server"),
}


@attrs.frozen(slots=True)
class GuardReport:
    """The guards of one child, by the label of the metric.

    :param active: label to its words.
    :param missing: label to the reason.
    """

    active: dict[str, str]
    missing: dict[str, str]

    def __str__(self) -> str:
        text = ", ".join(self.active.values())
        if self.missing:
            reasons = (f"{label.replace('_', ' ')} ({reason})" for label, reason in self.missing.items())
            text += f"; missing: {', '.join(reasons)}"
        return text

    @property
    def weakened(self) -> bool:
        """Whether something is missing that the machine or its container refuses; not to be root is no weakness."""
        return any(reason != _NOT_ROOT for reason in self.missing.values())


def launch(command: Sequence[str], *, network: bool) -> list[str]:
    """The command that starts *command* behind the guards.

    :param command: absolute path of node, its flags, the absolute path of the script.
    :param network: whether it may open connections.
    :returns: *command* itself when this Python does not know its own executable.
    """
    if not sys.executable:
        return list(command)
    uid, gid = _unprivileged_ids() if os.geteuid() == 0 else (-1, -1)
    files = _ACTION_FILES if network else _ISOLATE_FILES
    return [
        *(sys.executable, "-I", "-S", _LAUNCHER),
        *map(str, (os.getpid(), uid, gid, files)),
        _filter(network),
        "--",
        *command,
    ]


def launch_node(command: Sequence[str], *, read: Sequence[str], write: Sequence[str]) -> list[str]:
    """Likewise for actions with all of Node.

    :param read: directories that they may read, and execute files in, besides the system's. :param write: those that they may write.
    """
    if not sys.executable:
        return list(command)
    uid, gid = _unprivileged_ids() if os.geteuid() == 0 else (-1, -1)
    numbers = map(str, (os.getpid(), uid, gid, _ACTION_FILES))
    return [sys.executable, "-I", "-S", _NODE_LAUNCHER, *numbers, "--", *read, "--", *write, "--", *command]


def give_to_children(path: Path) -> None:
    """Make *path* the property of the user that children run as, if that is another one."""
    if os.geteuid() == 0:
        os.chown(path, *_unprivileged_ids())


def let_children_pass(path: Path) -> None:
    """Let the user that children run as, if that is another one, reach what is under *path*, without seeing what is there."""
    if os.geteuid() == 0 and path.is_dir():
        path.chmod(path.stat().st_mode | 0o011)


def launch_environment() -> dict[str, str]:
    """The launcher's environment; the child itself has ``TZ`` only."""
    # A Python that is built with a shared library may need this one to start.
    library_path = os.environ.get("LD_LIBRARY_PATH")
    return {"TZ": "UTC"} if library_path is None else {"TZ": "UTC", "LD_LIBRARY_PATH": library_path}


@functools.cache
def _filter(network: bool) -> str:
    """The system call filter in hex, or a dash and the reason why there is none."""
    if not sys.platform.startswith("linux"):
        return "-needs Linux"
    machine = seccomp.this_machine()
    if machine is None:
        return f"-no filter for {platform.machine()}"
    return seccomp.assemble(machine, network=network).hex()


def _unprivileged_ids() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return UNPRIVILEGED, UNPRIVILEGED
    return entry.pw_uid, entry.pw_gid


def read_report(fd: int, offset: int, *, network: bool, node: bool = False) -> GuardReport:
    """What the launcher wrote to its child's announce file.

    :param network: whether the child has a network on purpose: then it is not said to be missing.
    :param node: whether it has all of Node on purpose, likewise.
    """
    text = os.pread(fd, REPORT_BYTES, offset).rstrip(b"\0").decode("utf-8", "replace")
    done = dict(line.partition("\t")[::2] for line in text.splitlines())
    active, missing = {} if node else dict([_PERMISSION]), {}
    for label, (step, words) in _STEPS.items():
        if (label == "no_network" and network) or (node and label not in _NODE_STEPS):
            continue
        reason = done.get(step, _NOT_ROOT if step == "user" and done else _NOT_LAUNCHED)
        if reason:
            missing[label] = reason
        else:
            active[label] = words.format(uid=_unprivileged_ids()[0]) if step == "user" else words
    return GuardReport(active, missing)


class GuardBoard:
    """One log line for each pool when its first child runs, and again when something has changed; a metric with the present state."""

    _log = Logger()

    def __init__(self, registry: CollectorRegistry) -> None:
        self._active = Gauge(
            "convex_functions_guard_active", "Whether a guard holds the children", ["pool", "guard"], registry=registry
        )
        self._said: dict[str, GuardReport] = {}

    def listener(self, pool: str) -> Callable[[GuardReport], None]:
        """What a child of *pool* calls when it runs."""
        return lambda report: self._report(pool, report)

    def _report(self, pool: str, report: GuardReport) -> None:
        if self._said.get(pool) == report:
            return
        self._said[pool] = report
        for label in report.active:
            self._active.labels(pool, label).set(1)
        for label in report.missing:
            self._active.labels(pool, label).set(0)
        say = self._log.warn if report.weakened else self._log.info
        say("runner guards ({pool}): {guards}", pool=pool, guards=str(report))
