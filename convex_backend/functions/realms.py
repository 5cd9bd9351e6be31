"""Contexts that serve many runs, each of which evaluates its module anew: whether children may do so, and what they say of it.

A child compares its realm after every run and drops a context that differs in anything; now and then it runs a query again in a fresh context. Should
that ever give something else, the whole process stops sharing contexts.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from convex_backend.functions.pool_metrics import OnePool
from convex_backend.interfaces import CallSpec

MAX_CODES = 10_000
"""Modules that are counted, with their versions: more than a process should see."""


class RealmReuse:
    """The setting of one pool, and its counters.

    :param allowed: as the operator has set it.
    """

    _log = Logger()

    def __init__(self, allowed: bool, metrics: OnePool) -> None:
        self._allowed = allowed
        self._metrics = metrics
        self._marked: set[tuple[str, str]] = set()
        self._seen: set[tuple[str, str]] = set()

    @property
    def allowed(self) -> bool:
        """Whether children may share contexts."""
        return self._allowed

    def allows(self, spec: CallSpec) -> bool:
        """Whether the run of *spec* may share its context."""
        if not self._allowed or not spec.realm:
            return False
        return not self._marked or _code_of(spec) not in self._marked

    def ended(self, spec: CallSpec, report: dict[str, Any]) -> None:
        """A run has ended.

        :param report: ``realm`` of RESULT (``docs/internals.md`` section 7).
        :raises KeyError, TypeError: the child broke the protocol.
        """
        mismatch = report.get("mismatch")
        if mismatch is not None:
            self._allowed = False
            self._metrics.realm_runs("mismatch").inc()
            self._log.error(
                "a run in a used context gave something else than in a fresh one: contexts are not shared any more"
                " ({mismatch})",
                mismatch=str(mismatch),
            )
            return
        self._metrics.realm_runs("reused" if report["reused"] else "new").inc()
        code = _code_of(spec)
        if code not in self._seen and len(self._seen) < MAX_CODES:
            self._seen.add(code)
            self._metrics.realm_modules("realm").inc()
        discard = report["discard"]
        if discard:
            self._metrics.realm_discards("ended_badly" if discard == "ended_badly" else "changed").inc()
        if report["fresh_only"] and code in self._seen and code not in self._marked:
            self._marked.add(code)
            self._metrics.realm_modules("realm").dec()
            self._metrics.realm_modules("fresh_only").inc()
            self._log.warn(
                "runs of {module} change their context ({discard}): each gets a fresh one from now on",
                module=spec.module,
                discard=str(discard),
            )


def _code_of(spec: CallSpec) -> tuple[str, str]:
    return spec.module, next((ref.hash for ref in spec.closure if ref.path == spec.module), "")
