"""One run of a query, and the JSON text that all its subscribers share.

Source: ``sync.md`` section 4.1 (QueryUpdated, QueryFailed), ``runtime.md`` section 8.4 (what callers receive).
"""

from __future__ import annotations

import hashlib

import attrs
import orjson

from convex_backend.application.types import QueryResult
from convex_backend.functions.log_lines import pretty
from convex_backend.interfaces import FunctionError, LogLine


@attrs.frozen(slots=True, eq=False)
class Evaluation:
    """What one run of a query gave. Exactly one of ``value`` (canonical JSON text) and ``error`` is set.

    :param ts: the snapshot it ran at (ns).
    :param reads: the frozen read set, opaque here.
    :param journal: sealed journal of its paginated query, or ``None``.
    """

    value: bytes | None
    error: FunctionError | None
    log_lines: tuple[LogLine, ...]
    ts: int
    reads: object
    journal: str | None
    observed_identity: bool
    observed_time: bool
    request_id: str

    @property
    def failed(self) -> bool:
        """Whether the function failed."""
        return self.error is not None


def query_result(evaluation: Evaluation) -> QueryResult:
    """Serialise *evaluation* once, in the plain and in the redacted form."""
    lines = [pretty(line) for line in evaluation.log_lines]
    logs = orjson.dumps(lines)
    journal = orjson.dumps(evaluation.journal)
    error = evaluation.error
    if error is None:
        assert evaluation.value is not None
        content = evaluation.value
        plain = b',"value":%s,"logLines":%s,"journal":%s}' % (content, logs, journal)
        redacted = plain if not lines else b',"value":%s,"logLines":[],"journal":%s}' % (content, journal)
    else:
        content = error.message.encode("utf-8", "surrogatepass")
        data = b"" if error.data is None else b',"errorData":%s' % error.data
        content += data
        head = f"[Request ID: {evaluation.request_id}] Server Error"
        form = b',"errorMessage":%s,"logLines":%s,"journal":%s%s}'
        plain = form % (orjson.dumps(f"{head}\n{error.message}"), logs, journal, data)
        redacted = form % (orjson.dumps(head), b"[]", journal, data)
    digest = hashlib.blake2b(b"%d%s\0%s" % (error is not None, content, logs), digest_size=16).digest()
    return QueryResult(error is not None, digest, evaluation.journal, plain, redacted)
