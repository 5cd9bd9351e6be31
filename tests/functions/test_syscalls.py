"""Syscalls over a real transaction: shapes, texts, kinds, consumption, nested calls."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest

from convex_backend.errors import BadRequest, NotFound, PaginationLimit
from convex_backend.functions.context import CallContext, CallServices, CallTree, DeploymentInfo, RequestInfo
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.limits import DEPTH_TEXT
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.syscalls import ALL, full_table
from convex_backend.interfaces import CallHost, CallSpec, FunctionError, LogLine, ModuleRef, Outcome, SyscallReply
from convex_backend.values.paths import FunctionPath
from convex_backend.values.validators import parse_text
from tests.database.documents import Store, run

TABLE = full_table()


def function(path: str = "m:f", kind: str = "mutation", *, component: int = 0, **more: Any) -> ResolvedFunction:
    """A function without validators."""
    parsed = FunctionPath.parse(path)
    return ResolvedFunction(
        component=component,
        component_path="child" if component else "",
        path=parsed,
        kind=kind,
        visibility=more.get("visibility", "public"),
        args=more.get("args"),
        returns=more.get("returns"),
        closure=(ModuleRef(parsed.module, "h"),),
        import_seed=bytes(32),
        import_ms=0.0,
    )


class Directory:
    """Functions by component and canonical path."""

    def __init__(self) -> None:
        self.functions: dict[tuple[int, str], ResolvedFunction] = {}
        self.children = {"child": 7}
        self.seen: list[frozenset[str]] = []

    def add(self, *functions: ResolvedFunction) -> None:
        for one in functions:
            self.functions[one.component, one.path.canonical] = one

    async def resolve(self, transaction: Any, component: int, path: FunctionPath) -> ResolvedFunction | None:
        return self.functions.get((component, path.canonical))

    async def environment(self, transaction: Any, component: int) -> Environment:
        return Environment({"NAME": "value"}, "1")

    async def child_component(self, transaction: Any, component: int, name: str) -> int | None:
        return self.children.get(name) if component == 0 else None

    def component_path(self, component: int) -> str:
        return "child" if component == 7 else ""

    async def function_handle(self, transaction: Any, component: int, path: FunctionPath) -> str:
        return f"h{component}{path.name}"

    async def function_of_handle(self, transaction: Any, identifier: str) -> tuple[int, FunctionPath] | None:
        found = [key for key, one in self.functions.items() if identifier == f"h{key[0]}{one.path.name}"]
        return (found[0][0], FunctionPath.parse(found[0][1])) if found else None

    def observed(self, transaction: Any, function: ResolvedFunction, observed: frozenset[str]) -> None:
        self.seen.append(observed)


class Link:
    """Runs nested calls by a script instead of a child."""

    def __init__(self, script: Callable[[CallSpec, CallHost], Any]) -> None:
        self.script = script
        self.specs: list[CallSpec] = []

    async def run_nested(self, spec: CallSpec, host: CallHost) -> Outcome:
        self.specs.append(spec)
        host.begin(self)
        outcome = await self.script(spec, host)
        assert isinstance(outcome, Outcome)
        return host.complete(outcome)


def value(text: bytes, **more: Any) -> Outcome:
    """A successful outcome."""
    return Outcome(text, None, (), frozenset(), more.get("cpu_seconds", 0.0))


class Rig:
    """A store with one running call."""

    def __init__(self, kind: str = "mutation", store: Store | None = None, **more: Any) -> None:
        self.store = store or Store()
        self.directory = Directory()
        self.runner: Any = more.pop("nested_runner", None)
        self.transaction = None
        if kind in ("query", "mutation"):
            self.transaction = self.store.db.begin(kind)
            run(self.transaction.ensure_begun())
        services = CallServices(
            directory=self.directory,
            deployment=DeploymentInfo("happy-animal-123"),
            random_bytes=bytes,
            now_ms=lambda: 1234,
            seal=lambda data: base64.b64encode(data).decode(),
            unseal=lambda text: base64.b64decode(text),
            nested_runner=self.runner,
        )
        self.abandoned = 0
        self.tree = CallTree(
            services,
            self.transaction,
            RequestInfo("ab" * 8, ip="10.0.0.1"),
            lambda component: self.store.db.catalogs.newest.names(component),
            lambda component: {},
            on_abandon=self._abandon,
        )
        self.context = CallContext(
            self.tree, more.pop("function", function(kind=kind)), Environment({}, "0"), TABLE, **more
        )

    def _abandon(self) -> None:
        self.abandoned += 1

    def reply(self, op: str, args: Any = None, consumed: dict[str, int] | None = None) -> SyscallReply:
        text = args if isinstance(args, bytes) else orjson.dumps(args or {})
        return run(self.context.syscall(op, text, consumed))

    def call(self, op: str, args: Any = None) -> Any:
        return orjson.loads(self.reply(op, args).body)

    def error(self, op: str, args: Any = None) -> str:
        with pytest.raises((BadRequest, NotFound)) as caught:
            self.reply(op, args)
        return str(caught.value)


def test_documents_from_insert_to_remove() -> None:
    """A document is inserted, read, patched (a field deleted), replaced and removed, with the JSON shapes of the table."""
    rig = Rig()
    id = rig.call("1.0/insert", {"table": "t", "value": {"a": 1, "b": {"$integer": "AQAAAAAAAAA="}}})["_id"]
    found = rig.call("1.0/get", {"id": id, "isSystem": False, "version": "1.48.0", "table": "t"})
    assert (found["a"], found["b"], found["_id"]) == (1, {"$integer": "AQAAAAAAAAA="}, id)
    merged = rig.call("1.0/shallowMerge", {"id": id, "value": {"a": {"$undefined": None}, "c": "x"}})
    assert ("a" in merged, merged["c"]) == (False, "x")
    assert rig.call("1.0/replace", {"id": id, "value": {"d": True}, "table": "t"})["d"] is True
    assert rig.call("1.0/count", {"table": "t"}) == 1
    assert rig.call("1.0/remove", {"id": id})["d"] is True
    assert rig.call("1.0/get", {"id": id, "isSystem": False}) is None


def test_argument_texts() -> None:
    """Bad arguments name the argument and the call."""
    rig = Rig()
    assert rig.error("1.0/get", b"{").startswith("Received invalid json: ")
    assert rig.error("1.0/get", {}) == "Invalid arguments for `db.get`: missing field `id`"
    assert rig.error("1.0/get", {"id": 5}) == "Invalid argument `id` for `db.get`: expected a string"
    assert rig.error("1.0/get", {"id": "x"}).startswith("Invalid argument `id` for `db.get`: Unable to decode ID: ")
    assert rig.error("1.0/get", {"id": 1, "isSystem": True}).startswith("Invalid argument `id` for `db.system.get`")
    assert rig.error("1.0/insert", {"table": "t", "value": 1}) == (
        "Invalid argument `value` for `db.insert`: Value must be an Object"
    )
    assert "`value` for `db.insert`: " in rig.error("1.0/insert", {"table": "t", "value": {"$a": 1, "b": 2}})
    assert rig.error("1.0/queryStreamNext", {"queryId": 4}) == "in-progress query not found"


def test_kinds() -> None:
    """A query cannot write, an action has no transaction; names that do not exist are unknown operations."""
    query, action = Rig("query"), Rig("action")
    assert query.error("1.0/insert", {"table": "t", "value": {}}) == "Unknown async operation 1.0/insert"
    assert action.error("1.0/getTransactionMetrics") == "Unknown async operation 1.0/getTransactionMetrics"
    assert action.error("1.0/get", {"id": "x"}) == "Unknown async operation 1.0/get"
    assert Rig().error("1.0/nonsense") == "Unknown async operation 1.0/nonsense"


@pytest.mark.parametrize(
    ("kind", "op", "service"),
    [
        ("mutation", "1.0/schedule", "Scheduled functions are"),
        ("action", "1.0/actions/schedule", "Scheduled functions are"),
        ("action", "1.0/actions/vectorSearch", "Vector search is"),
    ],
)
def test_missing_services_are_named(kind: str, op: str, service: str) -> None:
    """A service that this version lacks is a catchable error that names it."""
    assert Rig(kind).error(op) == f"{service} not available in this version of convex-backend yet."


def test_audit_log_texts() -> None:
    """An action may never write audit logs."""
    assert Rig("action").error("1.0/auditLog") == "Audit logging is not yet supported in actions"


def test_every_name_of_the_table_is_known() -> None:
    """Each asynchronous syscall of ``runtime.md`` 2.3 that a kind may call has a handler for that kind."""
    everywhere = {"1.0/getUserIdentity", "1.0/getFunctionMetadata", "1.0/getDeploymentMetadata"}
    everywhere |= {"1.0/getRequestMetadata", "1.0/createFunctionHandle", "1.0/storageGetUrl", "1.0/storageGetMetadata"}
    for kind in ALL:
        assert everywhere <= TABLE.names(kind)
    reads = {"1.0/get", "1.0/queryStreamNext", "1.0/queryPage", "1.0/count", "1.0/runUdf", "1.0/getTransactionMetrics"}
    assert reads <= TABLE.names("query") & TABLE.names("mutation")
    writes = {"1.0/insert", "1.0/shallowMerge", "1.0/replace", "1.0/remove", "1.0/schedule", "1.0/cancel_job"}
    assert writes <= TABLE.names("mutation")
    assert not writes & TABLE.names("query")
    calls = {"1.0/actions/query", "1.0/actions/mutation", "1.0/actions/action", "1.0/actions/vectorSearch"}
    assert calls <= TABLE.names("action") & TABLE.names("httpAction")


# -- queries -----------------------------------------------------------------------------------------------------------


def filled(count: int) -> Store:
    """A store with *count* documents in ``t``."""
    store = Store()
    store.insert("t", *({"n": float(n)} for n in range(count)))
    return store


SCAN = {"source": {"type": "FullTableScan", "tableName": "t", "order": None}, "operators": []}


def test_stream_gives_pages_that_grow() -> None:
    """A stream is answered by pages: rows in order, the end known, what is left of the limits."""
    rig = Rig("query", filled(200))
    rig.context.open_query(0, orjson.dumps(SCAN))
    seen: list[float] = []
    sizes: list[int] = []
    done = False
    while not done:
        reply = rig.reply("1.0/queryStreamNext", {"queryId": 0}, {"0": sizes[-1] - 1} if sizes else None)
        rows = [orjson.loads(row)["n"] for row in reply.body.split(b"\n")]
        assert reply.meta["rows"] == len(rows)
        left = reply.meta["left"]
        assert isinstance(left, dict)
        assert left["docs"] == 32000 - len(seen) - 1
        seen += rows
        sizes.append(len(rows))
        done = bool(reply.meta["done"])
    assert seen == [float(n) for n in range(200)]
    assert sizes == [32, 64, 104]


def test_only_consumed_rows_are_read() -> None:
    """A page fetched ahead counts only by what the function took: one row by asking, more by report (A3)."""
    rig = Rig("query", filled(20))
    rig.context.open_query(0, orjson.dumps(SCAN))
    rig.reply("1.0/queryStreamNext", {"queryId": 0})
    assert rig.call("1.0/getTransactionMetrics")["documentsRead"]["used"] == 1
    reply = rig.reply("1.0/getTransactionMetrics", {}, {"0": 4})
    assert orjson.loads(reply.body)["documentsRead"]["used"] == 5
    rig.context.consumed({"0": 2})
    assert rig.call("1.0/getTransactionMetrics")["documentsRead"]["used"] == 7


def test_empty_stream_and_cleanup() -> None:
    """A stream without rows is done at once; a cleaned-up one is not found, and a second cleanup is harmless."""
    rig = Rig("query")
    rig.context.open_query(0, orjson.dumps(SCAN))
    reply = rig.reply("1.0/queryStreamNext", {"queryId": 0})
    assert (reply.body, reply.meta["rows"], reply.meta["done"]) == (b"", 0, True)
    rig.context.close_query(0)
    rig.context.close_query(0)
    assert rig.error("1.0/queryStreamNext", {"queryId": 0}) == "in-progress query not found"


def test_query_errors_come_with_the_first_row() -> None:
    """A query of an index that does not exist opens, and fails when it is read (F5)."""
    rig = Rig("query", filled(1))
    source = {"type": "IndexRange", "indexName": "t.by_x", "range": [], "order": None}
    rig.context.open_query(0, orjson.dumps({"source": source, "operators": []}))
    assert "Index t.by_x not found" in rig.error("1.0/queryStreamNext", {"queryId": 0})


def test_read_limit_arrives_at_the_right_row() -> None:
    """The row over the limit raises; what came before it is served."""
    rig = Rig("query", filled(10))
    assert rig.transaction is not None
    rig.transaction.counters.limits = attrs.evolve(rig.transaction.counters.limits, documents_read=3)
    rig.context.open_query(0, orjson.dumps(SCAN))
    reply = rig.reply("1.0/queryStreamNext", {"queryId": 0})
    assert (reply.meta["rows"], reply.meta["done"]) == (3, False)
    with pytest.raises(PaginationLimit, match="Too many documents read"):
        rig.reply("1.0/queryStreamNext", {"queryId": 0}, {"0": 2})


def test_pagination_goes_through_all_rows() -> None:
    """Pages joined by their cursors give every row once, and the last one is done."""
    store = filled(5)
    cursor: str | None = None
    seen: list[float] = []
    for _ in range(10):
        page = Rig("query", store).call(
            "1.0/queryPage",
            {"query": SCAN, "cursor": cursor, "endCursor": None, "pageSize": 2, "maximumRowsRead": None},
        )
        seen += [row["n"] for row in page["page"]]
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0]


# -- identity and metadata ---------------------------------------------------------------------------------------------


def test_identity_is_observed_when_asked_for() -> None:
    """Nobody's identity is null; asking marks the tree; an unusable token throws."""
    rig = Rig("query")
    assert not rig.tree.identity_observed
    assert rig.call("1.0/getUserIdentity", {"requestId": ""}) is None
    assert rig.tree.identity_observed
    rig.tree.identity = b'{"subject":"s"}'
    assert rig.call("1.0/getUserIdentity", {"requestId": ""}) == {"subject": "s"}
    rig.tree.identity_error = BadRequest("InvalidAuthHeader", "bad token")
    assert rig.error("1.0/getUserIdentity", {"requestId": ""}) == "bad token"


def test_metadata() -> None:
    """Name without extension, component, deployment and request; a query may not see the request."""
    rig = Rig()
    assert rig.call("1.0/getFunctionMetadata") == {"name": "m:f", "componentPath": ""}
    assert rig.call("1.0/getDeploymentMetadata") == {"name": "happy-animal-123", "region": None, "class": "s256"}
    request = rig.call("1.0/getRequestMetadata")
    assert (request["requestId"], request["ip"], request["authToken"]) == ("ab" * 8, "10.0.0.1", None)
    assert Rig("query").error("1.0/getRequestMetadata") == "Cannot get request metadata in a Query"
    metrics = rig.call("1.0/getTransactionMetrics")
    assert metrics["documentsWritten"] == {"used": 0, "remaining": 16000}


# -- nested calls ------------------------------------------------------------------------------------------------------


def nested(kind: str = "mutation", **more: Any) -> Rig:
    """A call with two functions to call."""
    rig = Rig(kind, **more)
    rig.directory.add(function("n:q", "query"), function("n:m", "mutation", visibility="internal"))
    return rig


def test_nested_query_gets_args_and_gives_its_value() -> None:
    """The object of arguments becomes the array of one; the callee's value is the answer."""
    rig = nested()

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        return value(b'{"r":1}')

    link = Link(script)
    rig.context.begin(link)
    assert rig.call("1.0/runUdf", {"udfType": "query", "name": "n:q", "args": {"a": [1]}}) == {"r": 1}
    [spec] = link.specs
    assert (spec.kind, spec.module, spec.export, spec.args) == ("query", "n.js", "q", b'[{"a":[1]}]')
    assert (spec.env, spec.request_id, spec.admitted) == ({"NAME": "value"}, "ab" * 8, True)


def test_nested_mutation_failure_rolls_back_its_writes_only() -> None:
    """A failed nested mutation leaves the parent's writes; the error carries text and data."""
    rig = nested()
    kept = rig.call("1.0/insert", {"table": "t", "value": {"who": "parent"}})["_id"]
    inserted: list[str] = []

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        reply = await host.syscall("1.0/insert", b'{"table":"new","value":{"who":"child"}}', None)
        inserted.append(orjson.loads(reply.body)["_id"])
        return Outcome(None, FunctionError("Uncaught ConvexError: no\n", b'"no"'), (), frozenset(), 0.0)

    rig.context.begin(Link(script))
    with pytest.raises(FunctionFailed) as caught:
        rig.reply("1.0/runUdf", {"udfType": "mutation", "name": "n:m", "args": {}})
    assert (str(caught.value), caught.value.error.data) == ("Uncaught ConvexError: no\n", b'"no"')
    assert rig.call("1.0/get", {"id": kept, "isSystem": False})["who"] == "parent"
    assert rig.call("1.0/get", {"id": inserted[0], "isSystem": False}) is None
    assert rig.call("1.0/count", {"table": "new"}) == 0


def test_nested_writes_are_seen_by_the_parent() -> None:
    """A nested mutation that succeeds writes in the parent's transaction."""
    rig = nested()

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        await host.syscall("1.0/insert", b'{"table":"t","value":{}}', None)
        return value(b"null")

    rig.context.begin(Link(script))
    rig.call("1.0/runUdf", {"udfType": "mutation", "reference": "_reference/function/n:m", "args": {}})
    assert rig.call("1.0/count", {"table": "t"}) == 1


def test_nested_refusals() -> None:
    """Wrong kinds, unknown functions and missing names have their texts."""
    rig = nested("query")
    assert rig.error("1.0/runUdf", {"udfType": "mutation", "name": "n:m", "args": {}}) == (
        "Cannot call a Mutation function from a Query function"
    )
    assert rig.error("1.0/runUdf", {"udfType": "snapshotQuery", "name": "n:q", "args": {}}) == (
        "Cannot call a SnapshotQuery function from a Query function"
    )
    assert rig.error("1.0/runUdf", {"udfType": "query", "name": "n:m", "args": {}}) == (
        "Trying to execute n.js:m as Query, but it is defined as Mutation."
    )
    assert rig.error("1.0/runUdf", {"udfType": "query", "args": {}}) == (
        "Invalid arguments for `runQuery`: Missing required argument 'name'"
    )
    with pytest.raises(Exception, match="Could not find public function for 'n:x'"):
        rig.reply("1.0/runUdf", {"udfType": "query", "name": "n:x", "args": {}})
    deep = nested("query", depth=8)
    assert deep.error("1.0/runUdf", {"udfType": "query", "name": "n:q", "args": {}}) == DEPTH_TEXT


def test_nested_validation() -> None:
    """Arguments and returned values of a nested call are checked; the texts have no prefix of an uncaught error."""
    rig = nested()
    validator = parse_text('{"type":"object","value":{"a":{"fieldType":{"type":"string"},"optional":false}}}')
    rig.directory.add(function("n:v", "query", args=validator, returns=parse_text('{"type":"string"}')))

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        return value(b"5")

    link = Link(script)
    rig.context.begin(link)
    text = rig.error("1.0/runUdf", {"udfType": "query", "name": "n:v", "args": {"a": 1}})
    assert text.startswith("ArgumentValidationError: ")
    assert link.specs == []
    text = rig.error("1.0/runUdf", {"udfType": "query", "name": "n:v", "args": {"a": "x"}})
    assert text.startswith("ReturnsValidationError: ")


def test_transaction_limits_hold_for_the_nested_call_only() -> None:
    """``transactionLimits`` lower the ceilings while the callee runs, never raise them, and end with it."""
    rig = nested()
    seen: list[Any] = []

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        seen.append(orjson.loads((await host.syscall("1.0/getTransactionMetrics", b"{}", None)).body))
        return value(b"null")

    rig.context.begin(Link(script))
    limits = {"documentsRead": 5, "documentsWritten": 10**9}
    rig.reply("1.0/runUdf", {"udfType": "query", "name": "n:q", "args": {}, "transactionLimits": limits})
    assert (seen[0]["documentsRead"]["remaining"], seen[0]["documentsWritten"]["remaining"]) == (5, 16000)
    assert rig.call("1.0/getTransactionMetrics")["documentsRead"]["remaining"] == 32000


def nested_in_child() -> tuple[Rig, list[int]]:
    """A rig whose directory has functions of component 7, and the component of each nested call's tables."""
    rig = nested()
    rig.directory.add(
        function("things:add", "mutation", component=7), function("things:secret", component=7, visibility="internal")
    )
    components: list[int] = []

    async def script(spec: CallSpec, host: CallHost) -> Outcome:
        assert rig.transaction is not None
        components.append(rig.transaction.component)
        return value(b"null")

    rig.context.begin(Link(script))
    return rig, components


def test_child_component_references() -> None:
    """A reference reaches a public function of a child component, whose tables then apply; others are refused by name."""
    rig, components = nested_in_child()
    base = {"udfType": "mutation", "args": {}}
    rig.reply("1.0/runUdf", {**base, "reference": "_reference/childComponent/child/things/add"})
    assert components == [7]
    assert rig.transaction is not None
    assert rig.transaction.component == 0
    assert rig.error("1.0/runUdf", {**base, "reference": "_reference/childComponent/other/things/add"}) == (
        'Child component ComponentName(Identifier("other")) not found'
    )
    assert rig.error("1.0/runUdf", {**base, "reference": "_reference/childComponent/child/things/secret"}) == (
        'Child component ComponentName(Identifier("child")) does not export [Identifier("things"), Identifier("secret")]'
    )


def test_actions_call_through_the_runner_of_the_application() -> None:
    """What an action calls is an execution of its own: kind, path and arguments go to the injected runner."""
    asked: list[Any] = []

    class Runner:
        async def run_from_action(
            self, caller: Any, kind: str, component: int, path: FunctionPath, args: bytes, reference: str | None
        ) -> bytes:
            asked.append((kind, component, path.canonical, args, reference))
            return b'"done"'

    rig = Rig("action", nested_runner=Runner())
    rig.directory.add(function("a:c", "query"))
    assert rig.call("1.0/actions/mutation", {"name": "a:b", "args": {"x": 1}, "requestId": ""}) == "done"
    assert rig.call("1.0/actions/query", {"reference": "_reference/function/a:c", "args": {}}) == "done"
    assert asked == [
        ("mutation", 0, "a.js:b", b'{"x":1}', None),
        ("query", 0, "a.js:c", b"{}", "_reference/function/a:c"),
    ]


# -- ends --------------------------------------------------------------------------------------------------------------


def test_complete_records_checks_and_warns() -> None:
    """The end of a root call records what was observed, checks the value, and warns near the limits."""
    rig = Rig("query", filled(3), function=function(kind="query", returns=parse_text('{"type":"number"}')))
    observed = Outcome(b"1", None, (), frozenset({"env:A"}), 0.9123456)
    outcome = rig.context.complete(observed)
    assert rig.directory.seen == [frozenset({"env:A"})]
    assert [line.code for line in outcome.log_lines] == ["warning:UserTimeout"]
    assert outcome.log_lines[0].messages == (
        "Function execution took a long time. (maximum duration: 1s, actual duration: 912.3456ms).",
    )
    failed = rig.context.complete(value(b'"text"'))
    assert failed.value is None
    assert failed.error is not None
    assert failed.error.message.startswith("ReturnsValidationError: ")


def test_warnings_of_the_transaction() -> None:
    """Over 80 % of a limit there is a WARN line with the figures."""
    rig = Rig("query")
    assert rig.transaction is not None
    rig.transaction.counters.documents_read = 30000
    [line] = rig.context.complete(value(b"1")).log_lines
    assert isinstance(line, LogLine)
    assert (line.level, line.code) == ("WARN", "warning:TooManyDocumentsRead")
    assert line.messages[0].startswith(
        "Many documents read in a single function execution (actual: 30000, limit: 32000). Consider using smaller limits"
    )


def test_abandon_is_told_once_for_the_root() -> None:
    """Only the root's end closes the transaction."""
    rig = Rig()
    CallContext(rig.tree, function(), Environment({}, "0"), TABLE, depth=1).abandon()
    assert rig.abandoned == 0
    rig.context.abandon()
    assert rig.abandoned == 1


def test_function_handles_in_transactions() -> None:
    """A handle names the same function by name or reference, is its own handle, and reaches internal functions of any component."""
    rig, components = nested_in_child()
    handle = rig.call("1.0/createFunctionHandle", {"reference": "_reference/childComponent/child/things/add"})
    assert handle == "function://h7add#things:add"
    assert rig.call("1.0/createFunctionHandle", {"functionHandle": handle}) == handle
    base = {"udfType": "mutation", "args": {}}
    rig.reply("1.0/runUdf", {**base, "functionHandle": handle, "name": "n:nope"})
    rig.reply("1.0/runUdf", {**base, "name": "function://h7secret"})
    assert components == [7, 7]
    for bad in ("function://nope#things:add", "function://", "nope", "function://h7"):
        assert rig.error("1.0/runUdf", {**base, "functionHandle": bad}) == "Function handle not found"
    assert "functionHandle" in rig.error("1.0/runUdf", {**base, "functionHandle": 1})
    assert "Could not find" in rig.error("1.0/createFunctionHandle", {"name": "n:nope"})


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("_reference/componentArgument/x", "Cannot execute a value resource"),
        ("_reference/childComponent/child", "Cannot execute a value resource"),
        ("_reference/currentSystemUdfInComponent/7", "Cannot execute a value resource"),
        ("nonsense", "Invalid reference: nonsense"),
    ],
)
def test_references_that_are_no_function(reference: str, text: str) -> None:
    """A reference to a value or a whole component cannot be called; a text that is none is refused."""
    assert nested().error("1.0/runUdf", {"udfType": "query", "args": {}, "reference": reference}) == text


def test_actions_are_told_the_reference_that_leads_nowhere() -> None:
    """In an action the text of a bad reference is the reference, for components and for functions."""
    rig = Rig("action", nested_runner=object())
    rig.directory.add(function("things:secret", component=7, visibility="internal"))
    for parts in ("nope/things/add", "child/things/secret", "child/things/none"):
        text = rig.error("1.0/actions/query", {"args": {}, "reference": f"_reference/childComponent/{parts}"})
        assert text == f"Couldn't resolve {parts.replace('/', '.')}"
    text = rig.error("1.0/actions/mutation", {"args": {}, "reference": "_reference/function/dir/mod:f"})
    assert text == "Couldn't resolve api.dir.mod.f"
