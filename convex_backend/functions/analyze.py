"""Push-time analysis in a child of its own: what modules, schema, auth config and app definition export (F3).

Analysis runs code that nobody has vetted yet, so each push gets a fresh child, which is closed afterwards. Source: ``runtime.md`` sections
1.5 to 1.10, ``push.md`` sections 5 to 7, ``docs/internals.md`` section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import orjson
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.errors import BadRequest, ConvexError, Overloaded, ServerFault
from convex_backend.functions import frames
from convex_backend.functions.admission import STOPPING_TEXT
from convex_backend.functions.frames import Frame
from convex_backend.functions.limits import MEMORY_TEXT, timeout_text
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.outcome import loads_lenient
from convex_backend.functions.runner_process import Child, ProcessExit

ANALYZE_SECONDS = 4.0
"""CPU limit of one analysis (``runtime.md`` 1.5)."""
WALL_SECONDS = 20.0
"""Wall limit of one analysis, for a machine that gives the child no time."""
HELLO_SECONDS = 10.0
TICK_SECONDS = 0.1


class AnalysisFailed(BadRequest):
    """The pushed code cannot be analysed; the message is the text for the developer, with frames and console lines.

    :param code: ``InvalidModules``, ``InvalidCron``, ``AuthConfigMissingEnvironmentVariable``, … (``push.md`` sections 5 to 7).
    :param location: module path and line (from 1) of a module that could not be linked, when they are known.
    """

    def __init__(self, message: str, code: str = "InvalidModules", location: tuple[str, int] | None = None) -> None:
        super().__init__(code, message)
        self.location = location


@attrs.frozen(slots=True)
class SourcePosition:
    """Where a handler is written: ``path`` of the source, line and column as the source map gives them."""

    path: str
    line: int
    column: int


@attrs.frozen(slots=True)
class AnalyzedFunction:
    """An exported function.

    :param kind: ``query``, ``mutation`` or ``action``.
    :param visibility: ``public``, ``internal`` or ``None``.
    :param args: validator JSON text as exported, ``None`` when there is none; ``returns`` likewise.
    """

    name: str
    kind: str
    visibility: str | None
    args: str | None
    returns: str | None
    position: SourcePosition | None


@attrs.frozen(slots=True)
class AnalyzedModule:
    """What one module exports.

    :param http_routes: of ``http.js``, as ``[{route: {path, method}, pos}]``; ``None`` in any other module.
    :param cron_specs: of ``crons.js``, as ``docs/internals.md`` says; ``None`` in any other module.
    :param reuse_context: the module exports ``experimental_reuseContext === true``.
    :param closure: paths that static imports reach, the module itself included.
    :param dynamic_closure: likewise with dynamic imports: what an action may load.
    :param import_time: whether the import phase looked at the clock; ``import_random`` and ``env`` (names) likewise.
    """

    functions: tuple[AnalyzedFunction, ...]
    http_routes: Any
    cron_specs: Any
    reuse_context: bool
    closure: tuple[str, ...]
    dynamic_closure: tuple[str, ...] = ()
    import_time: bool = False
    import_random: bool = False
    env: tuple[str, ...] = ()


@attrs.frozen(slots=True)
class AnalysisSpec:
    """One analysis.

    :param what: ``module``, ``schema``, ``auth`` or ``app``.
    :param path: the module that is analysed.
    :param modules: hashes of all modules that may be imported, by path.
    :param env: environment variables that it may read.
    :param extra: what the kind needs besides, JSON text.
    :param allow_env: of an app definition: whether it may look at ``process.env`` at all.
    """

    what: str
    path: str
    modules: Mapping[str, str]
    env: Mapping[str, str]
    import_seed: bytes
    import_ms: float
    extra: bytes = b""
    allow_env: bool = True


def read_module(tree: Any) -> AnalyzedModule:
    """:raises ServerFault: the runner's answer is not what it should be."""
    try:
        return AnalyzedModule(
            tuple(_function(function) for function in tree["functions"]),
            tree.get("httpRoutes"),
            tree.get("cronSpecs"),
            bool(tree.get("reuseContext", False)),
            tuple(tree["closure"]),
            tuple(tree.get("dynamicClosure", tree["closure"])),
            bool(tree.get("importTime", False)),
            bool(tree.get("importRandom", False)),
            tuple(tree.get("env", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ServerFault(f"The runner's analysis is malformed: {error!r}") from error


def _failed(tree: Any) -> AnalysisFailed:
    """The error member of an ANALYZED frame."""
    at = tree.get("location")
    location = (str(at["path"]), int(at["line"])) if at is not None else None
    return AnalysisFailed(str(tree["message"]), str(tree.get("code", "InvalidModules")), location)


def _function(tree: Any) -> AnalyzedFunction:
    visibility = tree.get("visibility")
    position = tree.get("pos")
    return AnalyzedFunction(
        tree["name"],
        tree["udfType"].lower(),
        visibility["kind"] if visibility is not None else None,
        tree.get("args"),
        tree.get("returns"),
        SourcePosition(position["path"], int(position["start_lineno"]), int(position["start_col"]))
        if position is not None
        else None,
    )


class Analysis:
    """One child for the analyses of one push; :meth:`start` it, ask, :meth:`close` it.

    :param clock: reactor or test clock.
    :param child: not started; must have been spawned with the flags for analysis.
    :param on_end: called when the child is gone.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        child: Child,
        modules: Iterable[ModuleText],
        on_end: Callable[[Analysis], None],
    ) -> None:
        self._on_end = on_end
        self._clock = clock
        self._child = child
        self._modules = list(modules)
        self._waiting: dict[int, Deferred[bytes]] = {}
        self._next_id = 0
        self._hello: Deferred[None] | None = None
        self._gone: list[Deferred[None]] = []
        self._lost = False
        self._timer: IDelayedCall | None = None
        self._call: int = 0
        self._since = 0.0
        self._cpu: float | None = None
        self._condemned: int = 0

    async def start(self) -> None:
        """Start the child and send it the modules. :raises ServerFault: it does not start."""
        hello: Deferred[None] = Deferred()
        self._hello = hello
        self._timer = self._clock.callLater(HELLO_SECONDS, self._child.kill, "no hello")
        try:
            self._child.start(self)
        except ServerFault:
            self._cancel_timer()
            self._lost = True
            self._on_end(self)
            raise
        await hello
        self.add_modules(self._modules)
        self._timer = self._clock.callLater(TICK_SECONDS, self._tick)

    def add_modules(self, modules: Iterable[ModuleText]) -> None:
        """Send further modules to the started child."""
        if self._lost:
            return
        for text in modules:
            head = {"hash": text.hash, "path": text.path, "kind": "script"}
            self._child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source)
            if text.source_map is not None:
                head["kind"] = "map"
                self._child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source_map)

    async def run(self, spec: AnalysisSpec) -> Any:
        """Analyse; several may be asked at once and run one after the other.

        :returns: the decoded result, as ``docs/internals.md`` says for ``spec.what``.
        :raises AnalysisFailed: the code's own fault, its limits included.
        :raises ServerFault: ours.
        """
        if self._lost:
            raise ServerFault()
        self._next_id += 1
        call = self._next_id
        answer: Deferred[bytes] = Deferred()
        self._waiting[call] = answer
        meta = orjson.dumps(
            {
                "what": spec.what,
                "path": spec.path,
                "modules": spec.modules,
                "env": spec.env,
                "import_seed": spec.import_seed.hex(),
                "import_ms": spec.import_ms,
                "allow_env": spec.allow_env,
            }
        )
        self._child.send(frames.ANALYZE, call, 0, meta, spec.extra)
        try:
            body = await answer
        finally:
            self._waiting.pop(call, None)
        return loads_lenient(body)

    async def module(self, spec: AnalysisSpec) -> AnalyzedModule:
        """:meth:`run` for ``what="module"``, typed."""
        return read_module(await self.run(spec))

    def close(self) -> Deferred[None]:
        """Close the child. :returns: fires when it is reaped."""
        if self._lost:
            return succeed(None)
        if not self._gone:
            self._fail_all(Overloaded("BackendIsNotRunning", STOPPING_TEXT))
            self._child.close()
        self._gone.append(Deferred())
        return self._gone[-1]

    def child_ready(self, child: Child) -> None:
        """See :class:`ChildListener`."""
        self._cancel_timer()
        hello, self._hello = self._hello, None
        if hello is not None:
            hello.callback(None)

    def frame_received(self, child: Child, frame: Frame) -> None:
        """See :class:`ChildListener`."""
        answer = self._waiting.pop(frame.call, None)
        if answer is None or frame.kind != frames.ANALYZED:
            return
        try:
            meta = loads_lenient(frame.meta)
            error = None
            if not meta["ok"]:
                error = _failed(meta["error"])
        except (ValueError, KeyError, TypeError):
            self._log.failure("the analysis child broke the protocol")
            answer.errback(Failure(ServerFault()))
            child.kill("protocol")
            return
        if error is None:
            answer.callback(frame.body)
        else:
            answer.errback(Failure(error))

    def child_lost(self, child: Child, exit: ProcessExit) -> None:
        """See :class:`ChildListener`."""
        self._lost = True
        self._cancel_timer()
        hello, self._hello = self._hello, None
        if hello is not None:
            hello.errback(Failure(ServerFault(f"The JavaScript runner did not start: {exit}. {exit.stderr}".rstrip())))
        guilty = self._waiting.pop(self._condemned or exit.announced.call, None)
        if guilty is not None:
            if self._condemned:
                guilty.errback(Failure(AnalysisFailed(timeout_text(ANALYZE_SECONDS))))
            elif exit.out_of_memory:
                guilty.errback(Failure(AnalysisFailed(MEMORY_TEXT)))
            else:
                guilty.errback(Failure(ServerFault()))
        self._fail_all(ServerFault())
        self._on_end(self)
        for waiter in self._gone:
            waiter.callback(None)

    def _fail_all(self, error: ConvexError) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(Failure(error))

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _tick(self) -> None:
        """Kill the child when one analysis has used up its time."""
        self._timer = self._clock.callLater(TICK_SECONDS, self._tick)
        call = self._child.announced().call
        usage = self._child.usage()
        now = self._clock.seconds()
        if call == 0 or call != self._call:
            self._call, self._since = call, now
            self._cpu = usage.cpu_seconds if usage is not None else None
            return
        wall = now - self._since
        burned = usage.cpu_seconds - self._cpu if usage is not None and self._cpu is not None else 0.0
        if not self._condemned and (burned > ANALYZE_SECONDS or wall > WALL_SECONDS):
            self._condemned = call
            self._child.kill("an analysis ran too long")


class Analyzer:
    """Makes analyses, and closes those that are still open when the server stops.

    :param spawn: makes a child for analysis, not started.
    """

    def __init__(self, clock: IReactorTime, spawn: Callable[[], Child]) -> None:
        self._clock = clock
        self._spawn = spawn
        self._open: set[Analysis] = set()

    @property
    def is_open(self) -> bool:
        """Whether one of its analyses has not ended."""
        return bool(self._open)

    async def open_analysis(self, modules: Iterable[ModuleText]) -> Analysis:
        """A started analysis over *modules*; the caller closes it.

        :raises ServerFault: the child does not start.
        """
        analysis = Analysis(self._clock, self._spawn(), modules, self._open.discard)
        self._open.add(analysis)
        try:
            await analysis.start()
        except BaseException:
            analysis.close()
            raise
        return analysis

    async def stop(self) -> None:
        """End all that are open; returns when their children are reaped."""
        for analysis in list(self._open):
            await analysis.close()
