"""Becomes a child for ``"use node"`` actions (F8): a process with all of Node, held by what does not break Node. Runs as a script.

::

    python -I -S node_launcher.py PARENT UID GID FILES -- READ… -- WRITE… -- node FLAGS… MAIN

    new session ── limits ── other user ── dies with its parent ── no new privileges ── files by list ── execve

Such an action may use the network and start programs of the system, so there is no filter of system calls. It may read and execute what is
in the system's own directories and under ``READ``, and besides these write under ``WRITE`` only: the server's own files are out of its reach.
The reports are those of ``sandbox_launcher.py``, whose steps it shares.
"""

import ctypes
import os
import sys
from _collections_abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import sandbox_launcher as base  # type: ignore[import-not-found]

FILE_BYTES = 512 << 20
"""The largest file that an action may write."""
_WRITE_FILE = 2
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/nix/store", "/gnu/store", "/proc", "/sys")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx")
_READ = base._EXECUTE | base._READ_FILE | base._READ_DIR


def _restrict_files(read: list[str], write: list[str]) -> None:
    if not sys.platform.startswith("linux"):
        raise OSError("needs Linux")
    zero = ctypes.c_size_t(0)
    version = base._landlock(base._CREATE_RULESET, None, zero, ctypes.c_uint32(base._VERSION_FLAG))
    everything = base._RIGHTS[min(version, len(base._RIGHTS)) - 1]
    rules = base._landlock(
        base._CREATE_RULESET, ctypes.byref(ctypes.c_uint64(everything)), ctypes.c_size_t(8), ctypes.c_uint32(0)
    )
    resolver = os.path.dirname(os.path.realpath(base._RESOLVER))
    allowed = [(path, _READ) for path in (*_SYSTEM, *read)]
    allowed += [(path, base._READ_FILE | _WRITE_FILE) for path in _DEVICES]
    allowed += [(path, everything) for path in write]
    if resolver.count("/") > 1:
        allowed.append((resolver, base._READ_FILE))
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # nothing to allow
        rule = base._PathRule(rights if os.path.isdir(path) else rights & ~base._READ_DIR, fd)
        try:
            base._landlock(
                base._ADD_RULE, ctypes.c_int(rules), ctypes.c_int(base._RULE_PATH_BENEATH), ctypes.byref(rule), zero
            )
        finally:
            os.close(fd)
    base._landlock(base._RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _split(arguments: list[str]) -> list[list[str]]:
    """The arguments between double dashes: at most three, the rest is the command."""
    parts: list[list[str]] = [[]]
    for one in arguments:
        if one == "--" and len(parts) < 4:
            parts.append([])
        else:
            parts[-1].append(one)
    return parts


def main(arguments: list[str]) -> None:
    """Does what the top of the file says; comes back only by an exception."""
    numbers, read, write, command = _split(arguments)
    parent, uid, gid, files = map(int, numbers)
    os.setsid()
    os.chdir("/")
    steps: list[tuple[str, Callable[[], None]]] = [
        ("limits", lambda: base._set_limits(files, command, FILE_BYTES)),
        ("user", lambda: base._change_user(uid, gid, command[0], command[-1], (*read, *write))),
        ("parent death", lambda: base._die_with(parent)),  # after the change of user, which undoes it
        ("new privileges", lambda: base._prctl(base._PR_SET_NO_NEW_PRIVS, 1)),
        ("files", lambda: _restrict_files(read, write)),
    ]
    if uid < 0:
        del steps[1]
    report = []
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:
            report.append(f"{name}\t{getattr(error, 'strerror', None) or error}\n")
        else:
            report.append(f"{name}\t\n")
    text = "".join(report).encode("utf-8", "replace")[: base.FILE_BYTES - base.REPORT_OFFSET]
    os.pwrite(base.REPORT_FD, text, base.REPORT_OFFSET)
    os.execve(command[0], command, base.ENVIRONMENT)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"The JavaScript runner cannot be started: {error}")
