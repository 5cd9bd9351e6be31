"""Becomes the JavaScript child after taking away what it does not need (F8). Runs as a script: standard library only, no package.

::

    python -I -S sandbox_launcher.py PARENT UID GID FILES FILTER -- node FLAGS… MAIN

    new session ── limits ── other user ── dies with its parent ── no new privileges ── files by list ── system call filter ── execve

``UID`` and ``GID`` are -1 to stay who we are; ``FILTER`` is a seccomp program in hex or ``-`` and a reason. What could be done and
what not goes to fd 4 behind the announcement, one line each: the guard's name, a tab, and the reason why it is missing, if it is.
A guard that cannot be had is reported, not fatal: the operator decides (``guards.py`` has the line that says so).

It is small because each start of a child pays for it: no import that is not needed.
"""

import ctypes
import os
import resource
import sys
from _collections_abc import Callable  # that of collections.abc, without its package

REPORT_FD = 4
REPORT_OFFSET = 24
OWN_PID = 0x7E5E1F00
ENVIRONMENT = {"TZ": "UTC"}
FILE_BYTES = 4096
# Writable memory that node maps before it runs anything: most of it is room for code, of which little is ever used.
NODE_DATA_BYTES = 896 << 20
STACK_BYTES = 8 << 20
_HEAP_FLAG = "--max-old-space-size="
OOM_SCORE = 500

_SIGKILL = 9
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2

# Landlock (linux/landlock.h); these three calls have the same numbers on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _RULE_PATH_BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_DIR = 1, 4, 8
# Reading, writing and making files, by version of the interface: moving between directories came with 2, truncation with 3.
_RIGHTS = (0x1FFF, 0x3FFF, 0x7FFF)
# The system's own directories: what a C library, libuv, V8, OpenSSL and the resolver read is there, and some of it must not be refused once it
# exists. Not among them: /home, /root, /var, /srv, /opt, /run, /tmp, where data and secrets are. Those that do not exist are passed over.
_READABLE = (
    *("/usr", "/lib", "/lib64", "/etc", "/nix/store", "/gnu/store"),
    *("/proc", "/sys", "/dev/null", "/dev/random", "/dev/urandom"),
)
_RESOLVER = "/etc/resolv.conf"


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("directory", ctypes.c_int32)]


def _prctl(option: int, argument: int, pointer: object = None) -> None:
    if not sys.platform.startswith("linux"):
        raise OSError("needs Linux")
    call = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    if call(option, ctypes.c_ulong(argument), zero if pointer is None else pointer, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _set_limits(files: int, command: list[str], file_bytes: int = FILE_BYTES) -> None:
    heap = [int(flag[len(_HEAP_FLAG) :]) for flag in command if flag.startswith(_HEAP_FLAG)]
    for kind, bound in (
        (resource.RLIMIT_CORE, 0),  # a core file would hold the data of users
        (resource.RLIMIT_FSIZE, file_bytes),  # enough for the announcement
        (resource.RLIMIT_NOFILE, files),
        # Buffers and WebAssembly memories are not in V8's heap, which has a limit of its own.
        *((resource.RLIMIT_DATA, NODE_DATA_BYTES + (megabytes << 20)) for megabytes in heap),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
    # Threads map a stack of this size, which counts as data; more than the usual size would leave too little of that.
    stack, most = resource.getrlimit(resource.RLIMIT_STACK)
    if stack == resource.RLIM_INFINITY or stack > STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, most))
    if sys.platform.startswith("linux"):
        # When memory runs out the kernel takes a child, which is replaced, and not the server. A container may have said more already.
        with open("/proc/self/oom_score_adj", "r+b", 0) as file:
            if int(file.read(16)) < OOM_SCORE:
                file.write(b"%d" % OOM_SCORE)


def _change_user(uid: int, gid: int, node: str, script: str, directories: tuple[str, ...] = ()) -> None:
    """:raises OSError: that user cannot read what it needs, or we may not; we are who we were."""
    if os.access not in os.supports_effective_ids:
        raise OSError("this system cannot say what another user may read")
    groups = os.getgroups()
    own = os.getegid()
    try:
        os.setgroups([])
        os.setegid(gid)
        os.seteuid(uid)
        try:
            wanted = [(node, os.R_OK | os.X_OK), (script, os.R_OK)]
            for path, mode in (*wanted, *((path, os.R_OK | os.X_OK) for path in directories)):
                if not os.access(path, mode, effective_ids=True):
                    raise OSError(f"user {uid} may not read {path}")
        finally:
            os.seteuid(0)
    except OSError:
        os.setegid(own)
        if os.getgroups() != groups:
            os.setgroups(groups)
        raise
    # As root these set the real and the saved ids too: there is no way back.
    os.setgid(gid)
    os.setuid(uid)


def _die_with(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        # It ended before the call above could see it.
        sys.exit(1)


def _landlock(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _interpreter(program: str) -> str | None:
    """The dynamic loader that an ELF file of 64 bits names (``PT_INTERP``): executing the file executes that one too."""
    with open(program, "rb") as file:
        head = file.read(4096)
    begin, size, count = (int.from_bytes(head[at : at + n], sys.byteorder) for at, n in ((32, 8), (54, 2), (56, 2)))
    for at in range(begin, begin + size * count, size):
        if int.from_bytes(head[at : at + 4], sys.byteorder) == 3:
            offset, length = (int.from_bytes(head[at + n : at + n + 8], sys.byteorder) for n in (8, 32))
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    return None


def _restrict_files(command: list[str]) -> None:
    """No file may be written or made, few may be read, node alone may be executed, from here on. Open files stay open."""
    if not sys.platform.startswith("linux"):
        raise OSError("needs Linux")
    zero = ctypes.c_size_t(0)
    version = _landlock(_CREATE_RULESET, None, zero, ctypes.c_uint32(_VERSION_FLAG))
    rights = ctypes.c_uint64(_RIGHTS[min(version, len(_RIGHTS)) - 1])
    rules = _landlock(_CREATE_RULESET, ctypes.byref(rights), ctypes.c_size_t(8), ctypes.c_uint32(0))
    node, script = command[0], command[-1]
    allowed = [(path, _READ_FILE) for path in _READABLE]
    allowed += [(node, _READ_FILE | _EXECUTE), (os.path.dirname(script), _READ_FILE | _READ_DIR)]
    loader = _interpreter(node)
    if loader is not None:
        allowed.append((loader, _READ_FILE | _EXECUTE))
    resolver = os.path.realpath(_RESOLVER)
    # Its directory, since the file is replaced, not rewritten; but not all of /run.
    directory = os.path.dirname(resolver)
    allowed.append((directory if directory.count("/") > 1 else resolver, _READ_FILE))
    for path, allowed_rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # nothing to allow
        rule = _PathRule(allowed_rights, fd)
        try:
            _landlock(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), zero)
        finally:
            os.close(fd)
    _landlock(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _filter_calls(text: str) -> None:
    if text.startswith("-"):
        raise OSError(text[1:])
    program = bytes.fromhex(text).replace(OWN_PID.to_bytes(4, sys.byteorder), os.getpid().to_bytes(4, sys.byteorder))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))


def main(arguments: list[str]) -> None:
    """Does what the top of the file says; comes back only by an exception."""
    parent, uid, gid, files = map(int, arguments[:4])
    text, command = arguments[4], arguments[6:]
    # Out of the terminal's reach: its Ctrl-C is for the server, which ends its children in order.
    os.setsid()
    os.chdir("/")
    steps: list[tuple[str, Callable[[], None]]] = [
        ("limits", lambda: _set_limits(files, command)),
        ("user", lambda: _change_user(uid, gid, command[0], command[-1])),
        ("parent death", lambda: _die_with(parent)),  # after the change of user, which undoes it
        ("new privileges", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1)),
        ("files", lambda: _restrict_files(command)),
        ("system calls", lambda: _filter_calls(text)),
    ]
    if uid < 0:
        del steps[1]
    report = []
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:  # ValueError: what setrlimit says to a limit that it does not take
            report.append(f"{name}\t{getattr(error, 'strerror', None) or error}\n")
        else:
            report.append(f"{name}\t\n")
    os.pwrite(REPORT_FD, "".join(report).encode("utf-8", "replace")[: FILE_BYTES - REPORT_OFFSET], REPORT_OFFSET)
    os.execve(command[0], command, ENVIRONMENT)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"The JavaScript runner cannot be started: {error}")
