# ruff: noqa: E501 - JavaScript texts
"""Contexts that serve many runs, each of which evaluates its module anew: no run sees anything of another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.runner.harness import (
    ANALYZE,
    ANALYZED,
    CANCEL,
    FORGET,
    RUNNER,
    SYSCALL,
    SYSRESULT,
    Child,
    Failure,
    Result,
    page,
)
from tests.runner.realm_cases import CONTROLS, HOST, LATER, MODULE, REALM, Case
from tests.runner.samples import HEAD, REGISTER

CASES = {
    f"{table}: {name}": case
    for table, cases in (("module", MODULE), ("realm", REALM), ("host", HOST), ("later", LATER), ("control", CONTROLS))
    for name, case in cases.items()
}
FROZEN = {"realm: name of a builtin function"}
"""Cases in which a function sees that builtin functions are frozen: another result than in a fresh context, the same in each run."""

NO_STATE = {
    "realm: expando on %ThrowTypeError%",
    "realm: process.env",
    "realm: Atomics.waitAsync",
    "host: printer loaded while a builtin is patched",
    "host: stopwatches",
    "host: lines",
    "host: random in the run",
    "host: random while evaluating, then not",
    "host: frames remembered of a realm object",
    "host: environment at import",
    "host: timers",
    "host: JavaScript syscalls",
}
"""Places that hold nothing even in a context that is used again without any care: the host or the language closes them."""

FUNCTIONS = (
    HEAD
    + """
let count = 0;
const imported = [process.env.AT_IMPORT ?? null, Date.now(), Math.random()];
const next = () => ++count;
export const counter = query(() => next());
export const count_ = mutation(() => next());
export const act = action(() => next());
export const sees = query(() => [next(), ...imported, process.env.IN_RUN ?? null, Date.now(), Math.random()]);
export const prints = query(() => { console.log(next()); console.time("a"); console.timeEnd("a"); });
export const fails = query(() => { throw new Error(`number ${next()}`); });
export const changes = query(() => { globalThis.mine = (globalThis.mine ?? 0) + 1; return globalThis.mine; });
export const asks = query(async () => [next(), await call("1.0/get")]);
export const leaves = query(() => { next(); call("1.0/get"); throw new Error("left"); });
export const never = query(() => { next(); return new Promise(() => {}); });
export const unhandled = query(async () => { next(); Promise.reject(new Error("lost")); await call("1.0/get"); });
export const spin = query(() => { next(); let x = 0; for (let i = 0; i < 15e8; i++) x += i; return x; });
export const occ = mutation(() => { next(); sync("throwOcc"); });
export const list = query(async ({ stop }) => { next(); const seen = []; for await (const row of rows({ q: 1 })) { seen.push(row.i); if (seen.length >= stop) break; } return [count, seen]; });
export const frozen = query(() => Object.isFrozen(Array.prototype.push));
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
    """A call of ``m.js`` in a checked realm."""
    return child.run(kind, "m.js", export, None if args is None else [args], answer, **({"realm": True} | more))


def is_reused(result: Result) -> bool:
    """Whether the context had served other runs."""
    return bool(result.meta.get("realm", {}).get("reused"))


def warm(child: Child) -> None:
    """Make a context that has served a run: the first run of a module has a context for itself."""
    for _ in range(2):
        run(child, "counter")
    assert is_reused(run(child, "counter"))


def outcome(result: Result) -> tuple[Any, ...]:
    """All that a run gives."""
    return result.body, result.meta.get("error"), result.meta["logs"], result.meta["observed"], result.calls


def runs_of(child: Child, register: str, number: int, case: Case, times: int, **more: Any) -> list[Result]:
    """Run the query of a case, in a module of its own, some times."""
    path = f"case{number}.js"
    top, handler = case
    digest = child.add_module(path, f"{HEAD}{top}\nexport const f = query({handler});\n")
    closure = {"register.js": register, path: digest}
    return [
        child.run("query", path, "f", None, lambda *_: "null", closure=closure, env={"A": "a"}, **more)
        for _ in range(times)
    ]


def test_no_case_leaks() -> None:
    """Every hiding place: three runs in contexts that may be shared give what a fresh context gives."""
    leaks, others = [], set()
    with Child() as child:
        register = child.add_module("register.js", REGISTER)
        for number, (name, case) in enumerate(CASES.items()):
            fresh = outcome(runs_of(child, register, number, case, 1)[0])
            first, *later = runs_of(child, register, number, case, 4, realm=True)
            assert outcome(first) == fresh, name
            given = [outcome(one) for one in later]
            if any(one != given[0] for one in given):
                leaks.append(name)
            elif given[0] != fresh:
                others.add(name)
    assert leaks == []
    assert others == FROZEN


@pytest.mark.slow
def test_cases_hide_something_where_nobody_looks() -> None:
    """The same modules in contexts that are simply used again do leak: the cases are hiding places."""
    quiet = set()
    with Child() as child:
        register = child.add_module("register.js", REGISTER)
        for number, (name, case) in enumerate(CASES.items()):
            if name.startswith("later: "):
                continue
            first, second = runs_of(child, register, number, case, 2, reuse=True)
            if outcome(first) == outcome(second):
                quiet.add(name)
    assert quiet == NO_STATE | {name for name in CASES if name.startswith("control: ")}


def test_contexts_of_modules_that_leave_nothing_are_used_again() -> None:
    """State of the module alone never costs a context, nor do globals that are made when they are touched."""
    kept = {name: case for name, case in CASES.items() if name.startswith(("module: ", "control: "))}
    kept |= {f"host: {name}": HOST[name] for name in ("lazy global touched", "crypto", "performance timeline", "lines")}
    with Child() as child:
        register = child.add_module("register.js", REGISTER)
        missed = [
            name
            for number, (name, case) in enumerate(kept.items())
            if not is_reused(runs_of(child, register, number, case, 3, realm=True)[2])
        ]
    assert missed == []


def test_a_module_whose_runs_change_the_realm_gets_fresh_contexts(child: Child) -> None:
    """After two changed contexts no more are kept; each RESULT says why."""
    told = [run(child, "changes") for _ in range(4)]
    assert [one.value for one in told] == [1, 1, 1, 1]
    changed = {"reused": False, "discard": "globalThis: keys"}
    assert [one.meta.get("realm") for one in told] == [
        None,
        {**changed, "fresh_only": False},
        {**changed, "fresh_only": True},
        None,
    ]


def test_what_a_run_sees_is_its_own(child: Child) -> None:
    """Seeds, clocks and variables of import and run are those of START, in one context."""
    warm(child)
    others: tuple[Mapping[str, Any], ...] = (
        {},
        {"import_seed": "0a" * 32},
        {"import_ms": 5},
        {"seed": "0b" * 32},
        {"now_ms": 77},
        {"env": {"AT_IMPORT": "x"}},
        {"env": {"IN_RUN": "y"}},
        {"component": "other"},
        {},
    )
    for other in others:
        used, fresh = run(child, "sees", **other), run(child, "sees", realm=False, **other)
        assert is_reused(used)
        assert outcome(used) == outcome(fresh)


def test_lines_and_errors_are_those_of_the_run(child: Child) -> None:
    """Console lines and thrown errors of a used context."""
    warm(child)
    for _ in range(2):
        assert run(child, "prints").logs == ["1", "a: 0ms"]
        failed = run(child, "fails")
        assert is_reused(failed)
        assert failed.error.startswith("Uncaught Error: number 1\n")


def test_pages_and_streams_start_anew(child: Child) -> None:
    """Rows, consumed reports and stream ids of an earlier run are gone."""
    warm(child)
    for base in (10, 20):
        asked = []

        def answer(op: str, args: Any, _meta: Any, base: int = base, asked: list[Any] = asked) -> Any:
            asked.append((op, args))
            return page([{"i": base + i} for i in range(3)], True) if op.endswith("Next") else ""

        used = run(child, "list", {"stop": 2}, answer=answer)
        assert is_reused(used)
        assert used.value == [1, [base, base + 1]]
        assert [args["queryId"] for op, args in asked if op.endswith("Next")] == [0]


def test_actions_have_fresh_contexts(child: Child) -> None:
    """An action neither takes nor leaves a context (R8)."""
    warm(child)
    done = run(child, "act", kind="action")
    assert (done.value, done.meta.get("realm")) == (1, None)


@pytest.mark.parametrize("export", ["unhandled", "never", "leaves", "occ"])
def test_a_run_that_ends_badly_takes_its_context_along(child: Child, export: str) -> None:
    """Unhandled rejections, promises that never settle, syscalls left behind, ends that cannot be caught (R6)."""
    warm(child)
    failed = run(child, export, kind="mutation" if export == "occ" else "query", answer=lambda *_: "null")
    assert failed.meta["realm"]["discard"] == "ended_badly"
    assert not is_reused(run(child, "counter"))


def test_limits_fatal_answers_and_cancelling_take_the_context_along(child: Child) -> None:
    """The time limit, an answer that ends the run, and a call that nobody waits for (R6)."""
    warm(child)
    assert run(child, "spin", timeout=20).meta["realm"]["discard"] == "ended_badly"
    warm(child)

    def fatal(*_: Any) -> str:
        raise Failure("conflict", fatal=True)

    assert run(child, "asks", answer=fatal).meta["realm"]["discard"] == "ended_badly"
    warm(child)
    number = child.start("query", "m.js", "asks", realm=True)
    kind, _, seq, _, _ = child.receive()
    assert kind == SYSCALL
    child.send(CANCEL, number)
    child.send(SYSRESULT, number, seq, None, "1")
    assert not is_reused(run(child, "counter"))


def test_one_call_at_a_time_in_a_context(child: Child) -> None:
    """Calls at once have contexts of their own, nested calls too."""
    warm(child)
    numbers = [child.start("query", "m.js", "asks", realm=True) for _ in range(3)]
    for _, of, seq, _, _ in [child.receive() for _ in numbers]:
        child.send(SYSRESULT, of, seq, None, "null")
        assert child.finish(of).value == [1, None]
    outer = child.start("mutation", "m.js", "parent", realm=True)
    _, _, seq, _, _ = child.receive()
    inner = child.start("query", "m.js", "counter", parent=outer, root=outer, seed=None, now_ms=None, realm=True)
    assert child.finish(inner).value == 1
    child.send(SYSRESULT, outer, seq, None, "null")
    assert child.finish(outer).value == [1, None]


def test_another_version_of_the_code_has_other_contexts(child: Child) -> None:
    """Contexts go by the hashes of the closure, and go with FORGET."""
    warm(child)
    child.add_module("register.js", REGISTER + "\n")
    assert not is_reused(run(child, "counter"))
    assert is_reused([run(child, "counter") for _ in range(2)][1])
    child.send(FORGET, meta={"hashes": [child.closure["m.js"]]})
    child.add_module("m.js", FUNCTIONS)
    assert not is_reused(run(child, "counter"))


def test_a_sample_that_differs_ends_all_sharing(child: Child) -> None:
    """One query in a thousand runs again in a fresh context; the difference (here: frozen builtins) is told once, and no context is shared any more."""
    told = []
    for _ in range(1010):
        report = run(child, "frozen").meta.get("realm")
        if report is not None and "mismatch" in report:
            told.append(report["mismatch"])
    assert told == ["m.js:frozen, result"]
    assert run(child, "frozen").value is False
    assert run(child, "frozen").meta.get("realm") is None


@pytest.mark.slow
def test_samples_that_agree_change_nothing(child: Child) -> None:
    """Runs with pages, lines and errors are run again with the answers that they got."""

    def answer(op: str, *_: Any) -> Any:
        return page([{"i": i} for i in range(3)], True) if op.endswith("Next") else "7"

    exports = [("list", {"stop": 2}), ("asks", None), ("prints", None), ("fails", None), ("sees", None)]
    for export, args in exports:
        for _ in range(1001):
            run(child, export, args, answer=answer)
    assert is_reused([run(child, "counter") for _ in range(2)][1])


ELIGIBILITY = {
    "plain": ("const o = { n: 0 }; export const f = query(() => ++o.n);", ""),
    "own arguments": ("function g() { return arguments.length; } export const f = query(() => g(1));", ""),
    "touches globals": ("const e = new TextEncoder(), u = typeof URL; export const f = query(() => u);", ""),
    "arguments": (
        "try { arguments.n = 1; } catch {} export const f = query(() => 1);",
        "m.js: arguments outside of functions",
    ),
    "arguments in an arrow": (
        "const g = () => arguments; export const f = query(() => 1);",
        "m.js: arguments outside of functions",
    ),
    "dynamic import": ("export const f = query(() => import('./register.js'));", "m.js: import()"),
    "import.meta": ("export const f = query(() => import.meta.url);", "m.js: import.meta"),
    "reassigned export": (
        "export let n = 0; export const f = query(() => ++n);",
        "m.js: the export n is assigned again",
    ),
    "global written": (
        "globalThis.registry ??= {}; export const f = query(() => 1);",
        "evaluation changes globalThis: keys",
    ),
    "builtin patched": (
        "Array.prototype.mine = 1; export const f = query(() => 1);",
        "evaluation changes globalThis.Array.prototype: keys",
    ),
    "patched in a microtask": (
        "Promise.resolve().then(() => { Math.n = 1; }); export const f = query(() => 1);",
        "evaluation changes globalThis.Math: keys",
    ),
    "builtin function patched": (
        "Array.prototype.push.mine = 1; export const f = query(() => 1);",
        "evaluation fails when builtin functions are frozen",
    ),
}


def analyzed(child: Child, path: str, modules: Mapping[str, str]) -> Any:
    """The analysis of a module."""
    meta = {"what": "module", "path": path, "modules": modules, "env": {}, "import_seed": "09" * 32, "import_ms": 1}
    child.send(ANALYZE, child.next_call, meta=meta)
    child.next_call += 1
    kind, _, _, told, body = child.receive()
    assert kind == ANALYZED
    assert told["ok"], told
    return json.loads(body)


@pytest.mark.parametrize("name", ELIGIBILITY)
def test_the_push_judges_each_module(child: Child, name: str) -> None:
    """What may not be evaluated twice in a context, by its syntax or by what it does, is told with the reason (R1, R4)."""
    text, reason = ELIGIBILITY[name]
    child.add_module("m.js", HEAD + text)
    assert analyzed(child, "m.js", child.closure)["realmRefusal"] == reason


def test_an_import_cycle_is_refused(child: Child) -> None:
    """Modules of a cycle see each other half evaluated."""
    child.add_module("a.js", 'import { b } from "./b.js"; export const a = () => b; ')
    child.add_module("b.js", 'import { a } from "./a.js"; export const b = () => a; ')
    assert analyzed(child, "a.js", child.closure)["realmRefusal"].endswith("import cycle")


KEPT_STATE = {
    "maps": "source maps by script: text of the code itself",
    "factories": "functions that hold the code, made once",
    "factoryCount": "their number",
    "loaded": "emptied by forgetGroups",
    "jsHandlers": "emptied by forgetGroups",
    "endCallbacks": "emptied by forgetGroups",
    "renewCallbacks": "emptied by forgetGroups",
    "groupOfJsSyscall": "constant",
    "kindNames": "constant",
    "readOps": "constant",
    "writeOps": "constant",
    "databaseOps": "constant",
    "stackHookProperty": "constant",
    "hiddenDescriptor": "holds nothing between uses",
    "lazyDescriptor": "holds nothing between uses",
    "nextSeq": "goes on, so that late answers reach nobody; never shown to functions",
    "nextOperation": "likewise",
    "nextImport": "likewise",
    "incoming": "new after each answer",
    "incomingCount": "0 after each answer",
    "snapshot": "of the realm",
    "stackOf": "a builtin",
    "startedMs": "set by invoke",
    "consoleObject": "part of the realm, compared",
}
"""State of the bridge that neither `begin` nor `renew` nor `restart` sets, and why that is right."""


def test_no_state_of_the_bridge_is_forgotten() -> None:
    """Each variable and collection at the top of the bridge is made new between runs, or is in the list above with the reason why not."""
    folder = RUNNER / "src" / "bridge"
    entries = (folder / "entries.js").read_text()
    check = (folder / "realm_check.js").read_text()
    resets = (
        entries[entries.index("  begin(") : entries.index("  setTables(")] + check[check.index("function restart()") :]
    )
    assigned = set(re.findall(r"\b(\w+)(?= = )", resets)) | set(re.findall(r"mapClear, (\w+)", resets))
    declared = set()
    for path in folder.glob("*.js"):
        declared |= set(re.findall(r"^let (\w+)", path.read_text(), re.M))
        declared |= set(
            re.findall(r"^const (\w+) = (?:new Native\w*Map|create\(null\)|\{ __proto__|\{$)", path.read_text(), re.M)
        )
    assert len(declared) > 50
    assert declared - assigned == set(KEPT_STATE)
