"""A deployment over memory whose modules are JSON texts that say what analysis finds in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from convex_backend.application.calls import Target
from convex_backend.application.deploy import Deploy
from convex_backend.application.directory import Directory
from convex_backend.application.environment import EnvironmentVariables
from convex_backend.application.node_packages import NodeCode, ReadText
from convex_backend.application.push_history import PushHistory
from convex_backend.application.push_store import PushStore
from convex_backend.application.sealing import Sealer
from convex_backend.application.settings import Settings
from convex_backend.application.system_functions import SystemFunctions
from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.directory import ResolvedFunction
from convex_backend.functions.module_text import ModuleText
from convex_backend.storage.memory_persistence import MemoryPersistence
from convex_backend.values.paths import FunctionPath
from tests.application.files_support import make_files
from tests.database.documents import Store, run
from tests.storage.memory_blobs import MemoryBlobs

CLOUD, SITE = "http://127.0.0.1:3210", "http://127.0.0.1:3211"
ADMIN = Identity("admin")


class FakeAnalysis:
    """A child that believes what the texts say of themselves."""

    def __init__(self, modules: Iterable[ModuleText], log: list[str]) -> None:
        self.texts = {text.hash: json.loads(text.source) for text in modules}
        self.log = log
        self.closed = False
        self.imports: list[str] = []

    async def run(self, spec: AnalysisSpec) -> Any:
        self.log.append(f"{spec.what} {spec.path}")
        tree = self.texts[spec.modules[spec.path]]
        if "fail" in tree:
            raise BadRequest(tree.get("code", "InvalidModules"), tree["fail"])
        if spec.what != "module":
            for name in tree.get("needs", ()):
                if name not in spec.env:
                    text = f"Environment variable {name} is used in auth config file but its value was not set"
                    raise BadRequest("AuthConfigMissingEnvironmentVariable", text)
            return tree["value"]
        closure = [spec.path]
        for path in closure:
            closure += [name for name in self.texts[spec.modules[path]].get("imports", ()) if name not in closure]
        return {
            "functions": tree.get("functions", []),
            "httpRoutes": tree.get("httpRoutes"),
            "cronSpecs": tree.get("cronSpecs"),
            "closure": sorted(closure),
            "dynamicClosure": sorted({*closure, *tree.get("dynamic", ())}),
            "importTime": tree.get("importTime", False),
            "importRandom": False,
            "env": tree.get("env", []),
            "reuseContext": False,
            "realmRefusal": "",
        }

    def add_modules(self, modules: Iterable[ModuleText]) -> None:
        for text in modules:
            self.imports.append(text.path)

    async def close(self) -> None:
        self.closed = True


class FakeAnalyzer:
    """Makes them, and remembers what was asked."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.children: list[FakeAnalysis] = []

    async def open_analysis(self, modules: Iterable[ModuleText]) -> FakeAnalysis:
        self.children.append(FakeAnalysis(modules, self.log))
        return self.children[-1]


class FakeNode:
    """Analyses ``"use node"`` modules in the same way, and remembers the code that it was given."""

    def __init__(self) -> None:
        self.codes: list[NodeCode] = []
        self.log: list[str] = []

    @asynccontextmanager
    async def analysis(self, code: NodeCode, read_text: ReadText) -> AsyncIterator[tuple[Any, str]]:
        self.codes.append(code)
        texts = {path: await read_text(digest) for path, digest in code.modules.items()}
        child = FakeAnalysis(texts.values(), self.log)
        ask = child.run

        async def run(spec: AnalysisSpec) -> Any:
            assert json.loads(spec.extra) == {"directory": f"packages/{code.id}"}
            return await ask(attrs.evolve(spec, modules={path: text.hash for path, text in texts.items()}))

        child.run = run  # type: ignore[method-assign]
        yield child, f"packages/{code.id}"


def function(name: str, kind: str = "Query", visibility: str | None = "public", args: Any = None) -> dict[str, Any]:
    """What analysis finds of a function."""
    return {
        "name": name,
        "pos": {"path": "x.js", "start_lineno": 3, "start_col": 7},
        "udfType": kind,
        "visibility": {"kind": visibility} if visibility else None,
        "args": None if args is None else json.dumps(args),
        "returns": None,
    }


def module(path: str, **tree: Any) -> dict[str, Any]:
    """A module of a push; the keywords are what analysis finds in it."""
    return {"path": path, "source": json.dumps(tree), "sourceMap": None, "environment": "isolate"}


def schema(*tables: dict[str, Any], validation: bool = True) -> dict[str, Any]:
    """A ``schema.js`` of a push."""
    return module("schema.js", value={"tables": list(tables), "schemaValidation": validation})


def table(name: str, fields: dict[str, Any] | None = None, **lists: Any) -> dict[str, Any]:
    """A table of a schema; *fields* are required members."""
    kind: dict[str, Any] = {"type": "any"}
    if fields is not None:
        members = {name: {"fieldType": validator, "optional": False} for name, validator in fields.items()}
        kind = {"type": "object", "value": members}
    empty = (
        "indexes",
        "stagedDbIndexes",
        "searchIndexes",
        "stagedSearchIndexes",
        "vectorIndexes",
        "stagedVectorIndexes",
    )
    return {"tableName": name, **{member: lists.get(member, []) for member in empty}, "documentType": kind}


def index(name: str, *fields: str) -> dict[str, Any]:
    """A database index of a table."""
    return {"indexDescriptor": name, "fields": list(fields)}


def sha256(tree: dict[str, Any]) -> str:
    """The CLI's hash of a module."""
    return hashlib.sha256((tree["source"] + (tree["sourceMap"] or "")).encode()).hexdigest()


class Deployment:
    """All of a deployment but its runners."""

    def __init__(self, persistence: MemoryPersistence | None = None) -> None:
        self.store = Store(persistence)
        self.db = self.store.db
        self.analyzer = FakeAnalyzer()
        self.node = FakeNode()
        self.rows = PushStore(database=self.db)
        self.directory = Directory(database=self.db, cloud_origin=CLOUD, site_origin=SITE)
        self.directory.start()
        self.history = PushHistory(store=self.rows, now_ns=self.store.clock.now_ns)
        self.deploy = Deploy(
            database=self.db,
            store=self.rows,
            directory=self.directory,
            analyzer=self.analyzer,
            clock=self.store.timers,
            random_bytes=self.db.random_bytes,
            now_ns=self.store.clock.now_ns,
            history=self.history,
            node=self.node,
        )
        self.environment = EnvironmentVariables(
            database=self.db, store=self.rows, directory=self.directory, analyzer=self.analyzer
        )
        sealer = Sealer(bytes(32), "test")
        self.files = make_files(self.store, sealer, MemoryBlobs())
        self.system = SystemFunctions(
            database=self.db,
            directory=self.directory,
            store=self.rows,
            settings=Settings("test", CLOUD, SITE, "0"),
            seal=lambda data: sealer.seal("cursor", data),
            unseal=lambda text: sealer.unseal("cursor", text),
            files=self.files,
        )

    # -- pushing ------------------------------------------------------------------------------------

    def request(
        self, *modules: dict[str, Any], unchanged: Iterable[dict[str, Any]] = (), **more: Any
    ) -> dict[str, Any]:
        app = {
            "definition": more.pop("definition", None),
            "dependencies": more.pop("dependencies", []),
            "schema": more.pop("schema", None),
            "changedModules": list(modules),
            "unchangedModuleHashes": [
                {"path": one["path"], "environment": "isolate", "sha256": sha256(one)} for one in unchanged
            ],
            "udfServerVersion": more.pop("version", "1.48.0"),
        }
        return {
            "adminKey": "k",
            "functions": "convex/",
            "appDefinition": app,
            "componentDefinitions": more.pop("components", []),
            **more,
        }

    def start(self, *modules: dict[str, Any], **more: Any) -> dict[str, Any]:
        started: dict[str, Any] = run(self.deploy.start_push(self.request(*modules, **more)))
        return json.loads(json.dumps(started))

    def wait(self, started: dict[str, Any], seconds: float = 10.0) -> dict[str, Any]:
        """The answer of wait_for_schema, with time going on."""
        request = {"schemaChange": started["schemaChange"], "timeoutMs": seconds * 1000}
        return self.eventually(lambda: self.deploy.wait_for_schema(request), seconds + 1)

    def finish(self, started: dict[str, Any], **more: Any) -> dict[str, Any]:
        return run(self.deploy.finish_push({"startPush": started, "dryRun": False, "message": None, **more}))

    def push(self, *modules: dict[str, Any], **more: Any) -> dict[str, Any]:
        """All steps of a push that succeeds; the answer of finish_push."""
        started = self.start(*modules, **more)
        assert self.wait(started) == {"type": "complete"}
        return self.finish(started)

    def eventually(self, make: Callable[[], Any], seconds: float = 5.0) -> Any:
        """The result of a coroutine that needs time to pass."""
        results: list[Any] = []
        failures: list[Any] = []
        Deferred.fromCoroutine(make()).addCallbacks(results.append, failures.append)
        for _ in range(int(seconds / 0.01)):
            if results or failures:
                break
            self.store.timers.advance(0.01)
        if failures:
            failures[0].raiseException()
        assert results, "still waiting"
        return results[0]

    # -- looking ------------------------------------------------------------------------------------

    def resolve(self, path: str, transaction: Any = None) -> ResolvedFunction | None:
        return run(self.directory.resolve(transaction, 0, FunctionPath.parse(path)))

    def resolve_recorded(self, path: str) -> tuple[ResolvedFunction | None, Any]:
        """Resolve in a transaction; the function and the frozen reads."""
        transaction = self.db.begin("query")
        run(transaction.ensure_begun())
        found = self.resolve(path, transaction)
        token, ts = transaction.read_token(), transaction.snapshot.ts
        transaction.close()
        return found, (token, ts)

    def ask(self, name: str, args: Any = None, identity: Identity = ADMIN, **more: Any) -> Any:
        """A system query's value."""
        transaction = self.db.begin("query")
        try:
            return run(
                self.system.run_query(
                    transaction, Target(FunctionPath.parse(name), "", True), json.dumps([args or {}]).encode(), identity
                )
            )
        finally:
            transaction.close()

    def watch(self, name: str, args: Any = None) -> list[int]:
        """Run a system query and collect the commits that invalidate it."""
        transaction = self.db.begin("query")
        run(
            self.system.run_query(
                transaction, Target(FunctionPath.parse(name), "", True), json.dumps([args or {}]).encode(), ADMIN
            )
        )
        hits: list[int] = []
        self.db.subscribe(transaction.read_token(), transaction.snapshot.ts, hits.append)
        transaction.close()
        return hits
