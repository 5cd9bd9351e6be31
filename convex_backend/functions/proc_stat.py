"""What the kernel says about a child: CPU time, state, resident memory. Reads of ``/proc`` cost microseconds and never block."""

from __future__ import annotations

import os

import attrs

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen(slots=True)
class ThreadUsage:
    """The main thread of a process, the one that runs JavaScript.

    :param cpu_seconds: user and system time so far.
    :param state: the kernel's letter, for instance ``R``, ``S`` or ``T`` (stopped by a signal or a tracer).
    """

    cpu_seconds: float
    state: str

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer stopped the process."""
        return self.state in ("T", "t")


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)


def main_thread_usage(pid: int) -> ThreadUsage | None:
    """The main thread's CPU time and state, or ``None`` where there is no such process or no ``/proc``."""
    raw = _read(f"/proc/{pid}/task/{pid}/stat")
    if raw is None:
        return None
    # The command name in parentheses may hold spaces and parentheses: fields are counted behind the last one.
    fields = raw[raw.rfind(b")") + 2 :].split()
    if len(fields) < 13:
        return None
    return ThreadUsage((int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND, fields[0].decode())


def resident_bytes(pid: int) -> int | None:
    """Resident memory of the process, or ``None`` as above."""
    raw = _read(f"/proc/{pid}/statm")
    if raw is None:
        return None
    fields = raw.split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else None
