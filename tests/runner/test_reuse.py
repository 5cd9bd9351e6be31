# ruff: noqa: E501 - JavaScript texts
"""Contexts that serve several runs: what stays, what is new for each run, and when a context is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import (
    CANCEL,
    FORGET,
    RESULT,
    SYSCALL,
    SYSRESULT,
    Child,
    Failure,
    Result,
)
from tests.runner.samples import HEAD, REGISTER

FUNCTIONS = (
    HEAD
    + """
export const experimental_reuseContext = true;
let count = 0, kept;
const imported = [process.env.AT_IMPORT, Date.now(), Math.random()];
performance.mark("imported");
const storage = new AsyncLocalStorage();
const inImport = storage.run("import", () => AsyncLocalStorage.snapshot());
const next = () => ++count;
export const counter = query(() => next());
export const countInMutation = mutation(() => next());
export const counterInAction = action(() => next());
export const shared = query(() => { globalThis.seen = (globalThis.seen ?? 0) + 1; return [next(), globalThis.seen]; });
export const observe = query(({ what }) => { next(); if (what === "env") return process.env.IN_RUN ?? null; if (what === "time") return Date.now(); if (what === "random") return Math.random(); return null; });
export const dice = query(() => [next(), Math.random(), imported[2]]);
export const clock = query(() => [next(), Date.now(), imported[1]]);
export const environment = query(() => [next(), process.env.IN_RUN, imported[0]]);
export const prints = query(() => { console.log(next()); console.time("a"); });
export const many = query(() => { next(); for (let i = 0; i < 300; i++) console.log(i); });
export const marks = query(() => { performance.mark("mine"); return [next(), performance.getEntries().map((one) => one.name)]; });
export const locals = query(() => {
  const before = [storage.getStore(), inImport(() => storage.getStore()), kept?.(() => storage.getStore())];
  storage.enterWith(next());
  kept = AsyncLocalStorage.snapshot();
  return [before.map((one) => one ?? null), storage.getStore()];
});
export const throws = query(() => { throw new Error(`number ${next()}`); });
export const unhandled = query(async () => { next(); Promise.reject(new Error("lost")); await call("1.0/get"); });
export const spin = query(() => { next(); const end = 2e9; let x = 0; for (let i = 0; i < end; i++) x += i; return x; });
export const never = query(() => { next(); return new Promise(() => {}); });
export const asks = query(async () => [next(), await call("1.0/get")]);
export const leaves = query(() => { next(); call("1.0/get"); throw new Error("left"); });
export const occ = mutation(() => { next(); sync("throwOcc"); });
export const timer = query(() => { next(); setTimeout(() => {}, 0); });
export const tablesOf = query(() => [next(), sync("1.0/db/normalizeId", { table: "t", idString: "j57000820c20a1g7104gm2rc1m70ynr8" }).id]);
export const list = query(async ({ stop }) => { next(); const seen = []; for await (const row of rows({ q: 1 })) { seen.push(row.i); if (seen.length >= stop) break; } return seen; });
export const openStream = query(async () => { kept ??= sync("1.0/queryStream", { query: {} }).queryId; next(); return await call("1.0/queryStreamNext", { queryId: kept }).then((row) => row.value ?? null, (e) => e.message); });
export const key = query(async () => {
  const bytes = new Uint8Array(32).fill(7);
  kept ??= await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  await crypto.subtle.importKey("raw", bytes.fill(8), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return [next(), new Uint8Array(await crypto.subtle.sign("HMAC", kept, new Uint8Array(1)))[0]];
});
export const breakRenewal = query(() => { Array.prototype.slice = () => { throw new Error("mine"); }; return next(); });
export const parent = mutation(async () => [next(), await call("1.0/runUdf", {})]);
"""
)


@pytest.fixture
def child() -> Iterator[Child]:
    """A child with the module ``m.js``."""
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("m.js", FUNCTIONS)
        yield one
    assert one.stderr == ""


def run(child: Child, export: str, args: Any = None, kind: str = "query", answer: Any = None, **more: Any) -> Result:
    """A call of ``m.js`` that may reuse contexts."""
    return child.run(kind, "m.js", export, None if args is None else [args], answer, **({"reuse": True} | more))


def count(child: Child, **more: Any) -> Any:
    """What ``counter`` gives: how many runs its context has had."""
    return run(child, "counter", **more).value


def nothing(*_: Any) -> str:
    """An answer of ``null``."""
    return "null"


def test_state_is_kept_across_runs_of_a_module_that_allows_it(child: Child) -> None:
    """Module variables and the global object live on, for queries and mutations together."""
    assert [run(child, "shared").value for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]
    assert run(child, "countInMutation", kind="mutation").value == 4


def test_state_is_not_kept_without_the_flag_or_in_actions(child: Child) -> None:
    """A run without ``reuse`` and an action have contexts of their own, and leave none behind."""
    assert count(child) == 1
    assert [count(child, reuse=False) for _ in range(2)] == [1, 1]
    assert [run(child, "counterInAction", kind="action").value for _ in range(2)] == [1, 1]
    assert count(child) == 2


@pytest.mark.parametrize(
    "other",
    [{"import_seed": "0a" * 32}, {"import_ms": 5}, {"env": {"A": "1"}}, {"component": "other"}],
    ids=lambda other: next(iter(other)),
)
def test_only_runs_of_the_same_code_and_surroundings_share(child: Child, other: dict[str, Any]) -> None:
    """Another import seed, time, environment or component means another context; the first one is still there."""
    assert [count(child), count(child, **other), count(child), count(child, **other)] == [1, 1, 2, 2]


def test_another_version_of_the_module_or_a_dependency_shares_nothing(child: Child) -> None:
    """The hashes of the whole closure count."""
    first = dict(child.closure)
    assert count(child) == 1
    child.add_module("register.js", REGISTER + "\n")
    assert count(child) == 1
    assert count(child, closure=first) == 2


def test_forgotten_modules_take_their_contexts_along(child: Child) -> None:
    """After FORGET and a new MODULE of the same hash the state is new."""
    assert count(child) == 1
    child.send(FORGET, meta={"hashes": [child.closure["m.js"]]})
    child.add_module("m.js", FUNCTIONS)
    assert count(child) == 1


def test_observations_are_those_of_the_run_and_of_the_import(child: Child) -> None:
    """Each run reports what itself has observed, and always what the import phase has."""
    for _ in range(2):
        for what, time_read, random_read, names in [
            ("env", False, False, ["AT_IMPORT", "IN_RUN"]),
            ("time", True, False, ["AT_IMPORT"]),
            ("random", False, True, ["AT_IMPORT"]),
            ("none", False, False, ["AT_IMPORT"]),
        ]:
            observed = run(child, "observe", {"what": what}).meta["observed"]
            assert (observed["time"], observed["random"], sorted(observed["env"])) == (time_read, random_read, names)
            assert (observed["import_time"], observed["import_random"]) == (True, True)
    assert count(child) == 9


def test_seed_time_and_tables_are_those_of_the_run(child: Child) -> None:
    """The same seed gives the same numbers in a used context; another one other numbers; time and tables come with START."""
    one, two, other = (run(child, "dice", seed=seed * 32).value for seed in ("07", "07", "08"))
    assert (one[0], two[0], other[0]) == (1, 2, 3)
    assert one[1:] == two[1:]
    assert other[1] != one[1]
    assert other[2] == one[2]
    assert run(child, "clock", now_ms=1000).value == [4, 1000, 1_600_000_000_000]
    assert run(child, "clock", now_ms=2000).value == [5, 2000, 1_600_000_000_000]
    assert run(child, "tablesOf", tables={"t": 10001}).value == [6, "j57000820c20a1g7104gm2rc1m70ynr8"]
    assert run(child, "tablesOf", tables={"t": 10002}).value == [7, None]


def test_console_starts_anew(child: Child) -> None:
    """Lines, the bound on their number and stopwatches belong to one run."""
    assert [run(child, "prints").logs for _ in range(2)] == [["1"], ["2"]]
    assert [len(run(child, "many").meta["logs"]) for _ in range(2)] == [257, 257]


def test_async_local_storage_starts_anew(child: Child) -> None:
    """No store of an earlier run is seen, not even through a snapshot that it has kept; a snapshot of the import phase still holds."""
    assert run(child, "locals").value == [[None, "import", None], 1]
    assert run(child, "locals").value == [[None, "import", None], 2]
    assert run(child, "locals").value == [[None, "import", None], 3]


def test_the_performance_timeline_starts_anew(child: Child) -> None:
    """Entries of the import phase are there, those of earlier runs are not."""
    assert [run(child, "marks").value for _ in range(3)] == [[i, ["imported", "mine"]] for i in (1, 2, 3)]


def test_keys_that_a_module_keeps_stay_good(child: Child) -> None:
    """A CryptoKey of an earlier run still signs, with its own bytes, although later runs import others."""
    values = [run(child, "key").value for _ in range(3)]
    assert [one[0] for one in values] == [1, 2, 3]
    assert len({one[1] for one in values}) == 1


def test_syscalls_of_a_used_context_reach_their_own_run(child: Child) -> None:
    """Rows consumed, pages and answers are those of the run; rows fetched ahead by an earlier run are gone."""
    pages = {"rows": 3, "done": True, "left": {"docs": 9, "bytes": 999}}
    for base in (10, 20):

        def answer(op: str, _args: Any, _meta: Any, base: int = base) -> Any:
            return (pages, "\n".join(f'{{"i":{base + i}}}' for i in range(3))) if op.endswith("Next") else ""

        result = run(child, "list", {"stop": 2}, answer=answer)
        assert result.value == [base, base + 1]
    assert count(child) == 3


def test_a_stream_of_an_earlier_run_is_unknown(child: Child) -> None:
    """Its id is not that of a stream of this run."""

    def answer(op: str, *_: Any) -> Any:
        return ({"rows": 1, "done": True, "left": {"docs": 9, "bytes": 999}}, "1") if op.endswith("Next") else ""

    assert run(child, "openStream", answer=answer).value == 1
    assert run(child, "openStream", answer=answer).value == "in-progress query not found"


def test_an_error_of_the_function_keeps_the_context(child: Child) -> None:
    """A thrown error ends the run and nothing else; the next run shows none of it."""
    assert run(child, "throws").error.startswith("Uncaught Error: number 1\n")
    assert run(child, "throws").error.startswith("Uncaught Error: number 2\n")
    result = run(child, "counter")
    assert (result.value, result.body) == (3, "3")


@pytest.mark.parametrize("export", ["unhandled", "never", "leaves", "occ", "timer"])
def test_a_run_that_ends_badly_takes_its_context_along(child: Child, export: str) -> None:
    """Unhandled rejections, promises that never settle, syscalls left behind, uncatchable ends, refused timers."""
    assert count(child) == 1
    assert not run(child, export, kind="mutation" if export == "occ" else "query", answer=nothing).ok
    assert count(child) == 1


def test_the_time_limit_and_fatal_answers_take_the_context_along(child: Child) -> None:
    """A run over the limit of a second, and one that Python ends."""
    assert count(child) == 1
    assert run(child, "spin", timeout=20).meta["error"]["kind"] == "system"
    assert count(child) == 1

    def fatal(*_: Any) -> str:
        raise Failure("conflict", fatal=True)

    assert run(child, "asks", answer=fatal).meta["error"]["kind"] == "fatal"
    assert count(child) == 1


def test_a_cancelled_run_takes_its_context_along(child: Child) -> None:
    """The answer that comes too late reaches nobody."""
    assert count(child) == 1
    call = child.start("query", "m.js", "asks", reuse=True)
    kind, _, seq, _, _ = child.receive()
    assert kind == SYSCALL
    child.send(CANCEL, call)
    child.send(SYSRESULT, call, seq, None, "1")
    assert count(child) == 1


def test_a_context_whose_code_breaks_the_renewal_is_dropped(child: Child) -> None:
    """User code that replaces what the renewal needs gets a fresh context, not an error."""
    assert run(child, "marks").value[0] == 1
    assert run(child, "breakRenewal").value == 2
    assert count(child) == 1


def test_one_call_at_a_time_and_the_last_used_first(child: Child) -> None:
    """Calls at once have contexts of their own; of those kept, the one that was used last is taken."""
    calls = [child.start("query", "m.js", "asks", reuse=True) for _ in range(3)]
    asked = [child.receive() for _ in calls]
    assert {of for _, of, *_ in asked} == set(calls)
    values = []
    for _, of, seq, _, _ in asked:
        child.send(SYSRESULT, of, seq, None, "null")
        values.append(child.finish(of).value[0])
    assert values == [1, 1, 1]
    assert [count(child) for _ in range(3)] == [2, 3, 4]


def test_at_most_eight_contexts_are_kept(child: Child) -> None:
    """Of ten that ended, the two that have waited longest are gone."""
    calls = [child.start("query", "m.js", "asks", reuse=True) for _ in range(10)]
    for call, seq in [child.receive()[1:3] for _ in calls]:
        child.send(SYSRESULT, call, seq, None, "null")
        child.finish(call)
    calls = [child.start("query", "m.js", "asks", reuse=True) for _ in range(10)]
    values = []
    for call, seq in [child.receive()[1:3] for _ in calls]:
        child.send(SYSRESULT, call, seq, None, "null")
        values.append(child.finish(call).value[0])
    assert sorted(values) == [1] * 2 + [2] * 8


def test_a_context_serves_a_thousand_runs(child: Child) -> None:
    """The thousandth run is its last."""
    values = [count(child) for _ in range(1002)]
    assert values == [*range(1, 1001), 1, 2]


def test_nested_calls_share_too_but_not_with_their_parent(child: Child) -> None:
    """A nested call runs in another context than its parent; what it observed counts for the parent's run alone."""
    for number in (1, 2):
        outer = child.start("mutation", "m.js", "parent", reuse=True)
        _, _, seq, _, _ = child.receive()
        inner = child.start(
            "query", "m.js", "observe", [{"what": "env"}], parent=outer, root=outer, seed=None, now_ms=None, reuse=True
        )
        kind, of, _, _, _ = child.receive()
        assert (kind, of) == (RESULT, inner)
        child.send(SYSRESULT, outer, seq, None, "null")
        result = child.finish(outer)
        assert result.value == [number, None]
        assert sorted(result.meta["observed"]["env"]) == ["AT_IMPORT", "IN_RUN"]
    assert run(child, "counter").meta["observed"]["env"] == ["AT_IMPORT"]


def test_reuse_saves_most_of_a_run(child: Child) -> None:
    """A used context answers several times faster than a fresh one: it is really not built again."""

    def seconds(**more: Any) -> float:
        count(child, **more)
        before = _cpu_seconds(child.process.pid)
        for _ in range(200):
            count(child, **more)
        return _cpu_seconds(child.process.pid) - before

    assert seconds(reuse=True) * 2 < seconds(reuse=False)


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def test_results_are_json(child: Child) -> None:
    """The text of a result is that of the run, not of the one before."""
    assert json.loads(run(child, "dice").body)[0] == 1
    assert run(child, "prints").body == "null"
