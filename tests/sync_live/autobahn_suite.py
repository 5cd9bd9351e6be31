"""The Autobahn test suite's own cases, run on Python 3.

``autobahntestsuite`` is Python 2 code that needs an Autobahn of 2015. Its cases are small classes that send frames through a protocol object and
compare what came back. They are read from its source archive and executed here with what Python 2 means by a few words; texts stay texts, in
which each character stands for an octet. The protocol under them is the client of today's Autobahn.
"""

from __future__ import annotations

import ast
import binascii
import builtins
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket import compress
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.pypi_sources import source_folder

VERSION, SHA256 = "25.10.1", "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"


def octets(text: Any) -> bytes:
    """Octets of a text of Python 2."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


class _Character(str):
    """``unichr(n)``: encodes to a text of octets."""

    def encode(self, encoding: str = "utf-8", errors: str = "surrogatepass") -> str:  # type: ignore[override]
        return super().encode(encoding, errors).decode("latin-1")


class _Validator(Utf8Validator):
    def validate(self, text: str) -> Any:
        return super().validate(octets(text))


class _Python2(ast.NodeTransformer):
    """Division of integers."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Div):
            node.op = ast.FloorDiv()
        return node


def _make_class(name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type:
    return type(name, tuple(base for base in bases if base is not object), members)


class _Offer(compress.PerMessageDeflateOffer):  # type: ignore[misc]
    """With the names of an older Autobahn."""

    def __init__(self, requestNoContextTakeover: bool = False, requestMaxWindowBits: int = 0) -> None:
        super().__init__(
            request_no_context_takeover=requestNoContextTakeover, request_max_window_bits=requestMaxWindowBits
        )
        self.requestNoContextTakeover, self.requestMaxWindowBits = requestNoContextTakeover, requestMaxWindowBits


def _module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(members)
    return made


class _Loader:
    """Executes the modules of ``autobahntestsuite/case``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "case"
        self._loaded: dict[str, ModuleType] = {
            "binascii": _module("binascii", b2a_hex=lambda text: binascii.b2a_hex(octets(text)).decode()),
            "pkg_resources": _module("pkg_resources", resource_filename=lambda _, name: str(folder / name)),
            "autobahn.websocket.compress": _module("compress", **{**vars(compress), "PerMessageDeflateOffer": _Offer}),
            # Not among the suite's cases; it needs a zope.interface of long ago.
            "case9_9_1": _module("case9_9_1"),
            "autobahn.websocket.utf8validator": _module("utf8validator", Utf8Validator=_Validator),
        }
        self._builtins = {
            **vars(builtins),
            "__import__": self._import,
            "xrange": range,
            "unichr": lambda number: _Character(chr(number)),
        }

    def _import(self, name: str, *rest: Any) -> ModuleType:
        if name not in self._loaded and (self._folder / f"{name}.py").exists():
            self._loaded[name] = self.load(name, f"{name}.py")
        found = self._loaded.get(name)
        return __import__(name, *rest) if found is None else found

    def load(self, name: str, file: str) -> ModuleType:
        """Execute a file of the suite."""
        text = re.sub(r"^(\s*)print\b.*$", r"\1pass", (self._folder / file).read_text("latin-1"), flags=re.MULTILINE)
        tree = ast.fix_missing_locations(_Python2().visit(ast.parse(text)))
        made = _module(name, __builtins__=self._builtins, type=_make_class)
        exec(compile(tree, file, "exec"), made.__dict__)
        return made


@cache
def load_cases() -> dict[str, type]:
    """All cases by id, ``1.1.1``, in the suite's order."""
    folder = source_folder("autobahntestsuite", VERSION, SHA256) / "autobahntestsuite"
    cases = _Loader(folder).load("case_list", "__init__.py").Cases
    return {case.__name__.removeprefix("Case").replace("_", "."): case for case in cases}


class CaseClient(WebSocketClientProtocol):
    """The suite's protocol object: a client that does to the wire what a case asks for."""

    def __init__(self, reactor: Any, case: type) -> None:
        super().__init__()
        self._reactor = reactor
        self._make_case = case
        self.case: Any = None
        self.connectionWasOpen = False
        self.createWirelog = False
        self.txFrameStats: dict[int, int] = {}
        self.done: Deferred[Any] = Deferred()
        self.is_text_of_octets = not case.__name__.startswith(("Case12", "Case13"))

    def startHandshake(self) -> None:
        """The case may want extensions to be offered."""
        self.case = self._make_case(self)
        super().startHandshake()

    def onOpen(self) -> None:
        self.connectionWasOpen = True
        self.case.onOpen()

    def _text(self, payload: bytes) -> Any:
        return payload.decode("latin-1") if self.is_text_of_octets else payload

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.case.onMessage(self._text(payload), isBinary)

    def onPing(self, payload: bytes) -> None:
        """The server's keep-alive. An answer could come into the middle of a frame that a case sends in pieces."""

    def onPong(self, payload: bytes) -> None:
        self.case.onPong(self._text(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self.case is not None and not self.done.called:
            self.case.onClose(wasClean, code, reason)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if not self.done.called:
            self.case.onConnectionLost(self.failedByMe)
            self.done.callback(self.case)

    def logTxFrame(self, frameHeader: Any, *_: Any) -> None:
        self.txFrameStats[frameHeader.opcode] = self.txFrameStats.get(frameHeader.opcode, 0) + 1

    # -- what cases call ----------------------------------------------------------------------------------------------

    def enableWirelog(self, enable: bool) -> None:
        """No reports are written here."""

    def sendFrame(self, opcode: int, payload: Any = b"", **options: Any) -> None:
        super().sendFrame(opcode, payload=octets(payload), **options)

    def sendMessage(self, payload: Any, isBinary: bool = False, **options: Any) -> None:
        super().sendMessage(octets(payload), isBinary, **options)

    def sendMessageFrameData(self, payload: Any, sync: bool = False) -> Any:
        return super().sendMessageFrameData(octets(payload), sync)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: Any = None, isReply: bool = False) -> None:
        super().sendCloseFrame(code, None if reasonUtf8 is None else octets(reasonUtf8), isReply)

    def _later(self, delay: float, function: Callable[[], None]) -> None:
        def call() -> None:
            if self.state != self.STATE_CLOSED:
                function()

        self._reactor.callLater(delay, call)

    def continueLater(self, delay: float, function: Callable[[], None], tag: str | None = None) -> None:
        self._later(delay, function)

    def killAfter(self, delay: float) -> None:
        self._later(delay, self._fail_connection)

    def closeAfter(self, delay: float) -> None:
        self._later(delay, self.sendClose)


async def run_cases(reactor: Any, port: int, cases: dict[str, type], at_once: int) -> dict[str, SimpleNamespace]:
    """Run *cases* against an echo server.

    :returns: by id: ``behavior`` and ``close``, verdicts of the suite, and ``text``, what it says of them.
    """
    found: dict[str, SimpleNamespace] = {}
    room = DeferredSemaphore(at_once)

    async def run(name: str, case: type) -> None:
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{port}/api/sync", reactor=reactor)
        # Autobahn's timers fire up to a second early.
        factory.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=5, serverConnectionDropTimeout=5)
        factory.logFrames = True
        client = CaseClient(reactor, case)
        client.factory = factory
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
        case_ = await client.done
        found[name] = SimpleNamespace(
            behavior=case_.behavior, close=case_.behaviorClose, text=f"{case_.result} {case_.resultClose}"
        )

    await gatherResults(
        [room.run(lambda n=name, c=case: Deferred.fromCoroutine(run(n, c))) for name, case in cases.items()],
        consumeErrors=True,
    )
    return found
