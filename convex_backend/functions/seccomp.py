"""The system calls that a JavaScript child may not make, as a seccomp filter (F8).

A list of refusals, not of permissions: V8 and libuv take up new calls with every release, and a runner that a new kernel or
node stops is worse than one call too many behind the permission model. What is refused is what reaches past the process: the network, other
processes, the kernel's own state. A refused call gives ``EPERM``, as a container's would.

::

    load arch ── other: EPERM
    load nr ──── x32: EPERM
       │
       ├─ nr refused ───────────────────────── EPERM
       ├─ clone without CLONE_THREAD ───────── EPERM      (threads, but no processes)
       ├─ clone3 ───────────────────────────── ENOSYS     (its flags are behind a pointer; the C library then takes clone)
       ├─ kill, tgkill, prlimit64 of others ── EPERM
       ├─ socket of other families ─────────── EPERM      (children with a network only; else all sockets are refused)
       └─ anything else: allow

Programs are classic BPF: 8-byte instructions in the machine's byte order (``linux/filter.h``).
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Sequence
from struct import Struct

import attrs

OWN_PID = 0x7E5E1F00
"""Stands in the program for the child's own process id, which is known in the child alone; no kernel gives such an id."""

INSTRUCTION = Struct("=HBBI")
"""Code, jump if true, jump if false, operand."""

LOAD, JUMP_EQUAL, JUMP_NOT_LESS, JUMP_SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
ABSENT = _ERRNO | errno.ENOSYS

# Offsets in struct seccomp_data; the low half of an argument, both machines being little-endian.
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16

_CLONE_THREAD = 0x00010000
_AF_INET, _AF_INET6 = 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_TYPE_MASK = 1, 2, 0xF
_X32_BIT = 0x40000000

# Name: number on x86_64, number on aarch64; None where the machine has no such call.
_Numbers = dict[str, tuple[int | None, int | None]]

_NETWORK: _Numbers = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
}
_SERVING: _Numbers = {
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
}
_PROCESSES: _Numbers = {
    # Making them; clone and clone3 have rules of their own. execve stays: the launcher needs it after the filter is in place.
    "fork": (57, None),
    "vfork": (58, None),
    "execveat": (322, 281),
    # Signals; kill and tgkill have rules of their own.
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # Looking into them.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    # Shared memory, semaphores and queues by name.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
_SYSTEM: _Numbers = {
    # The view of the file system.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
    # Large parts of the kernel that have been the way out of many a sandbox.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # also a way around every rule of this file
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    # The machine itself; for a child that stays root.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_BY_ARGUMENT: _Numbers = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}


@attrs.frozen(slots=True)
class Machine:
    """A processor that we have numbers for. ``column`` is its place in the tables, ``audit`` the kernel's name for it."""

    name: str
    column: int
    audit: int


MACHINES = {
    "x86_64": Machine("x86_64", 0, 0xC000003E),
    "aarch64": Machine("aarch64", 1, 0xC00000B7),
}

_Instruction = tuple[int, int, int, int]


def this_machine() -> Machine | None:
    """The machine that we run on, ``None`` when there is no filter for it."""
    return MACHINES.get(platform.machine())


_TABLES: _Numbers = {**_NETWORK, **_SERVING, **_PROCESSES, **_SYSTEM, **_BY_ARGUMENT}
CALLS = frozenset(_TABLES)
"""Every call that some rule names."""


def number(name: str, machine: Machine) -> int | None:
    """The number of the call *name*, ``None`` when the machine has none. :raises KeyError: it is in no table."""
    return _TABLES[name][machine.column]


def assemble(machine: Machine, *, network: bool) -> bytes:
    """The filter program.

    :param network: whether the child may open connections (TCP and UDP); never may it serve.
    :returns: instructions with :data:`OWN_PID` where the child's process id belongs.
    """
    refused = {**_PROCESSES, **_SYSTEM, **_SERVING, **({} if network else _NETWORK)}
    if network:
        refused["socketpair"] = _NETWORK["socketpair"]
    program: list[_Instruction] = [
        (LOAD, 0, 0, _ARCH),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, _NUMBER),
    ]
    if machine.name == "x86_64":
        program += [(JUMP_NOT_LESS, 0, 1, _X32_BIT), (RETURN, 0, 0, REFUSE)]
    for name in refused:
        program += _rule(name, machine, [(RETURN, 0, 0, REFUSE)])
    program += _rule(
        "clone", machine, [_argument(0), (JUMP_SET, 0, 1, _CLONE_THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    )
    program += _rule("clone3", machine, [(RETURN, 0, 0, ABSENT)])
    program += _rule("kill", machine, _one_of(0, [OWN_PID]))
    program += _rule("tgkill", machine, _one_of(0, [OWN_PID]))
    program += _rule("prlimit64", machine, _one_of(0, [0, OWN_PID]))
    if network:
        program += _rule("socket", machine, _connection_sockets())
    program.append((RETURN, 0, 0, ALLOW))
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def _rule(name: str, machine: Machine, body: Sequence[_Instruction]) -> list[_Instruction]:
    """*body*, which returns on every way, for the call *name*; nothing when the machine has no such call."""
    call = number(name, machine)
    return [] if call is None else [(JUMP_EQUAL, 0, len(body), call), *body]


def _argument(index: int) -> _Instruction:
    return (LOAD, 0, 0, _FIRST_ARGUMENT + 8 * index)


def _one_of(argument: int, values: Sequence[int]) -> list[_Instruction]:
    """Allow when the argument, an ``int`` to the kernel, has one of the values."""
    body = [_argument(argument)]
    for value in values:
        body += [(JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*body, (RETURN, 0, 0, REFUSE)]


def _connection_sockets() -> list[_Instruction]:
    """Stream and datagram sockets of the two internet families: no raw packets, no Unix sockets of the machine's services."""
    return [
        _argument(0),
        (JUMP_EQUAL, 2, 0, _AF_INET),
        (JUMP_EQUAL, 1, 0, _AF_INET6),
        (RETURN, 0, 0, REFUSE),
        _argument(1),
        (AND, 0, 0, _SOCK_TYPE_MASK),
        (JUMP_EQUAL, 1, 0, _SOCK_STREAM),
        (JUMP_EQUAL, 0, 1, _SOCK_DGRAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
