"""What definitions, schemas and auth configs gave when they were evaluated last.

An evaluation depends on its :class:`AnalysisSpec` alone: the hashes of all that it may import, the variables, and the clock and seed of the
import phase, which a push that changes no module keeps. So a push of an unchanged app needs no child at all, which is most of what its requests
would cost.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.module_text import ModuleText

if TYPE_CHECKING:
    from convex_backend.application.push_analysis import AnalysisPool, OpenAnalysis

#: Bytes of JSON text of all that is remembered; each result counts for ``_ENTRY_BYTES`` besides.
MAX_BYTES: Final = 4 << 20
_ENTRY_BYTES: Final = 512
_REMEMBERED: Final = frozenset(("app", "schema", "auth"))


def _key(spec: AnalysisSpec) -> bytes:
    """A digest of all that an evaluation depends on. Variables may be secrets, so they are not kept as they are."""
    return hashlib.sha256(orjson.dumps(attrs.astuple(spec), default=bytes.hex, option=orjson.OPT_SORT_KEYS)).digest()


class EvaluationMemo:
    """An ``AnalysisPool`` that starts a child of *pool* only for what it does not remember.

    Failures are not remembered, nor are modules: rows of deployed ones hold their analysis.
    """

    def __init__(self, pool: AnalysisPool, *, max_bytes: int = MAX_BYTES) -> None:
        self.pool = pool
        self._max_bytes = max_bytes
        self._bytes = 0
        self._results: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    async def open_analysis(self, modules: Iterable[ModuleText]) -> _RememberingAnalysis:
        """An analysis over *modules*; its child starts with the first question that is new."""
        return _RememberingAnalysis(self, modules)

    def recall(self, key: bytes) -> Any:
        """:returns: a copy of the result of *key*. :raises KeyError: it is not remembered."""
        result = self._results[key][0]
        self._results.move_to_end(key)
        return copy.deepcopy(result)

    def remember(self, key: bytes, result: Any) -> None:
        """Keep a copy of *result*, and let go of what was not asked for for the longest time."""
        size = _ENTRY_BYTES + len(orjson.dumps(result))
        if key in self._results or size > self._max_bytes:
            return
        self._results[key] = copy.deepcopy(result), size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._results.popitem(last=False)
            self._bytes -= dropped


class _RememberingAnalysis:
    """One push's analysis; asked one thing at a time."""

    def __init__(self, memo: EvaluationMemo, modules: Iterable[ModuleText]) -> None:
        self._memo = memo
        self._modules = list(modules)
        self._added: list[ModuleText] = []
        self._child: OpenAnalysis | None = None

    def add_modules(self, modules: Iterable[ModuleText]) -> None:
        """See ``OpenAnalysis``."""
        if self._child is not None:
            self._child.add_modules(modules)
        else:
            self._added += modules

    async def run(self, spec: AnalysisSpec) -> Any:
        """See ``OpenAnalysis``. :raises ServerFault: the child does not start."""
        if spec.what not in _REMEMBERED:
            return await (await self._started()).run(spec)
        key = _key(spec)
        try:
            return self._memo.recall(key)
        except KeyError:
            result = await (await self._started()).run(spec)
            self._memo.remember(key, result)
            return result

    async def _started(self) -> OpenAnalysis:
        if self._child is None:
            child: OpenAnalysis = await self._memo.pool.open_analysis(self._modules)
            self._child = child
            child.add_modules(self._added)
        return self._child

    async def close(self) -> None:
        """See ``OpenAnalysis``."""
        if self._child is not None:
            await self._child.close()
