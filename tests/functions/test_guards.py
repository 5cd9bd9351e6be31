"""The system call filter, instruction by instruction, and what is said about the guards."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.logger import globalLogPublisher

from convex_backend.functions import guards, sandbox_launcher, seccomp
from convex_backend.functions.guards import GuardBoard, GuardReport, read_report
from convex_backend.functions.runner_process import ANNOUNCE
from convex_backend.functions.seccomp import ALLOW, MACHINES, OWN_PID, Machine, assemble, number

PERMITTED, EPERM, ENOSYS = "permitted", errno.EPERM, errno.ENOSYS
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK = 1, 2, 10, 16, 17, 40
STREAM, DGRAM, RAW, CLOEXEC_NONBLOCK = 1, 2, 3, 0o2004000
both_machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


def verdict(program: bytes, audit: int, call: int, *arguments: int) -> str | int:
    """What the kernel does with a call: an interpreter of the instructions that filters are made of."""
    data = [call, audit, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        data += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    code = list(seccomp.INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    while True:
        operation, true, false, operand = code[at]
        at += 1
        match operation:
            case seccomp.LOAD:
                accumulator = data[operand // 4]
            case seccomp.AND:
                accumulator &= operand
            case seccomp.JUMP_EQUAL:
                at += true if accumulator == operand else false
            case seccomp.JUMP_NOT_LESS:
                at += true if accumulator >= operand else false
            case seccomp.JUMP_SET:
                at += true if accumulator & operand else false
            case seccomp.RETURN:
                return PERMITTED if operand == ALLOW else operand & 0xFFFF
            case _:
                raise AssertionError(f"instruction {operation:#x}")


def ask(machine: Machine, name: str, *arguments: int, network: bool = False) -> str | int:
    call = number(name, machine)
    assert call is not None
    return verdict(assemble(machine, network=network), machine.audit, call, *arguments)


@both_machines
@pytest.mark.parametrize("name", ["socket", "socketpair", "connect", "bind", "listen", "accept4"])
def test_children_without_network_have_no_socket_calls(machine: Machine, name: str) -> None:
    """Queries and mutations can make no socket of any family, and use none."""
    for family in (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK):
        assert ask(machine, name, family, STREAM) == EPERM


@both_machines
def test_children_with_network_may_connect_only(machine: Machine) -> None:
    """Actions make TCP and UDP sockets and connect them; they do not serve, and no other family is open to them."""
    for family in (AF_INET, AF_INET6):
        for kind in (STREAM, DGRAM):
            assert ask(machine, "socket", family, kind | CLOEXEC_NONBLOCK, network=True) == PERMITTED
        assert ask(machine, "socket", family, RAW, network=True) == EPERM
    for family in (0, AF_UNIX, AF_NETLINK, AF_PACKET, AF_VSOCK, 1 << 31 | AF_INET):
        assert ask(machine, "socket", family, STREAM, network=True) == EPERM
    assert ask(machine, "connect", 5, network=True) == PERMITTED
    assert ask(machine, "bind", 5, network=True) == PERMITTED
    for name in ("listen", "accept", "accept4", "socketpair"):
        assert ask(machine, name, 5, network=True) == EPERM


@both_machines
@pytest.mark.parametrize("network", [False, True])
def test_threads_yes_processes_no(machine: Machine, network: bool) -> None:
    """``clone`` makes threads only; ``clone3``, which a filter cannot read, does not exist, so that the C library takes ``clone``."""
    thread = 0x3D0F00  # as glibc's pthread_create asks
    assert ask(machine, "clone", thread, network=network) == PERMITTED
    assert ask(machine, "clone", 17, network=network) == EPERM  # SIGCHLD: fork
    assert ask(machine, "clone", 0x4111, network=network) == EPERM  # CLONE_VM | CLONE_VFORK | SIGCHLD: posix_spawn
    assert ask(machine, "clone3", network=network) == ENOSYS
    if machine.name == "x86_64":
        assert ask(machine, "fork", network=network) == EPERM
        assert ask(machine, "vfork", network=network) == EPERM


@both_machines
def test_signals_reach_the_child_itself_only(machine: Machine) -> None:
    """``kill`` and ``tgkill`` go to the own process; not to groups, all processes or others, nor by another call."""
    for name in ("kill", "tgkill"):
        assert ask(machine, name, OWN_PID, 6) == PERMITTED
        for other in (1, 0, -1 & 0xFFFFFFFF, -1, OWN_PID + 1):
            assert ask(machine, name, other, 9) == EPERM
    for name in ("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal"):
        assert ask(machine, name, OWN_PID) == EPERM
    assert ask(machine, "prlimit64", 0) == PERMITTED
    assert ask(machine, "prlimit64", OWN_PID) == PERMITTED
    assert ask(machine, "prlimit64", 1) == EPERM


@both_machines
@pytest.mark.parametrize("name", ["ptrace", "process_vm_readv", "mount", "unshare", "bpf", "io_uring_setup", "keyctl"])
def test_calls_that_reach_past_the_process_are_refused(machine: Machine, name: str) -> None:
    """With and without a network."""
    assert {ask(machine, name, network=network) for network in (False, True)} == {EPERM}


@both_machines
def test_other_numbering_is_no_way_around(machine: Machine) -> None:
    """Calls of another machine's numbering, where the same number means something else, are refused altogether."""
    program = assemble(machine, network=True)
    other_audit = 0x40000003  # i386
    assert verdict(program, other_audit, 3) == EPERM
    if machine.name == "x86_64":
        assert verdict(program, machine.audit, 0x40000000 | 39) == EPERM
        assert verdict(program, machine.audit, 39) == PERMITTED


@settings(max_examples=200)
@given(
    st.sampled_from([*MACHINES.values()]),
    st.booleans(),
    st.integers(0, 600),
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
)
def test_every_call_gets_a_verdict(machine: Machine, network: bool, call: int, arguments: list[int]) -> None:
    """Whatever is called, the program comes to a return; what no rule names is permitted."""
    named = {number(name, machine) for name in seccomp.CALLS}
    answer = verdict(assemble(machine, network=network), machine.audit, call, *arguments)
    assert answer in {PERMITTED, EPERM, ENOSYS}
    if call not in named:
        assert answer == PERMITTED


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@both_machines
def test_numbers_are_those_of_the_kernel(machine: Machine) -> None:
    """The tables agree with the C headers of the system."""
    header = HEADERS[machine.name]
    if not header.exists():
        pytest.skip(f"no {header}")
    numbers = {name: int(call) for name, call in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
    assert {name: number(name, machine) for name in seccomp.CALLS} == {
        name: numbers.get(name) for name in seccomp.CALLS
    }


def test_launcher_and_package_agree() -> None:
    """What the launcher, which can import nothing of ours, repeats is the same there."""
    assert sandbox_launcher.OWN_PID == OWN_PID
    assert ANNOUNCE.size == sandbox_launcher.REPORT_OFFSET
    assert sandbox_launcher.FILE_BYTES == guards.REPORT_BYTES


def report_of(text: str, *, network: bool = False) -> GuardReport:
    fd = os.memfd_create("report")
    try:
        os.pwrite(fd, text.encode(), ANNOUNCE.size)
        return read_report(fd, ANNOUNCE.size, network=network)
    finally:
        os.close(fd)


ALL = "limits\t\nuser\t\nparent death\t\nnew privileges\t\nfiles\t\nsystem calls\t\n"


def test_report_names_what_is_active() -> None:
    """With everything in place nothing is missing; a child that has a network is not said to lack its guard."""
    report = report_of(ALL)
    assert report.missing == {}
    assert set(report.active) == {"permission_model", *guards._STEPS}
    assert "no_network" not in report_of(ALL, network=True).active
    assert not report.weakened


def test_report_says_why_a_guard_is_missing() -> None:
    """A container that forbids filters costs two guards, and the reason is said once for each."""
    report = report_of(ALL.replace("system calls\t", "system calls\tOperation not permitted"))
    assert report.missing == dict.fromkeys(["no_network", "system_calls"], "Operation not permitted")
    assert str(report).endswith(
        "; missing: no network (Operation not permitted), system calls (Operation not permitted)"
    )
    assert report.weakened


def test_not_to_be_root_is_no_weakness() -> None:
    """Without root there is no other user to change to; that is said, but not as a warning."""
    report = report_of(ALL.replace("user\t\n", ""))
    assert report.missing == {"other_user": "the server does not run as root"}
    assert not report.weakened


def test_without_a_launcher_only_node_itself_guards() -> None:
    """An empty report: nothing is claimed that has not been reported."""
    report = report_of("")
    assert list(report.active) == ["permission_model"]
    assert set(report.missing.values()) == {"the launcher did not run"}


def test_board_logs_once_for_each_state() -> None:
    """One line for each pool, another only when the state changes; the metric follows."""
    registry = CollectorRegistry()
    board = GuardBoard(registry)
    events: list[dict[str, object]] = []
    globalLogPublisher.addObserver(events.append)
    try:
        good, bad = report_of(ALL), report_of(ALL.replace("files\t", "files\tFunction not implemented"))
        for pool, report in [("isolate", good), ("isolate", good), ("action", good), ("isolate", bad)]:
            board.listener(pool)(report)
    finally:
        globalLogPublisher.removeObserver(events.append)
    said = [(event["pool"], str(event["log_level"].name)) for event in events if "guards" in event]  # type: ignore[attr-defined]
    assert said == [("isolate", "info"), ("action", "info"), ("isolate", "warn")]

    def value(pool: str, guard: str) -> float | None:
        return registry.get_sample_value("convex_functions_guard_active", {"pool": pool, "guard": guard})

    assert value("isolate", "file_access") == 0
    assert value("action", "file_access") == 1
    assert value("isolate", "no_network") == 1


def test_machine_without_a_filter_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without tables the launcher gets the reason in the filter's place."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    guards._filter.cache_clear()
    try:
        assert "-no filter for riscv64" in guards.launch(["/node", "/main.mjs"], network=False)
    finally:
        guards._filter.cache_clear()


def test_python_that_does_not_know_itself_starts_node_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter without an executable still runs functions."""
    monkeypatch.setattr("sys.executable", "")
    assert guards.launch(["/node", "/main.mjs"], network=False) == ["/node", "/main.mjs"]


def test_documentation_names_every_guard() -> None:
    """The page on the guards has a row for each label of the metric."""
    page = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text("utf-8")
    assert [label for label in ("permission_model", *guards._STEPS) if f"| `{label}` |" not in page] == []
