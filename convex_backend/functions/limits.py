"""Limits of function calls, and the warnings near them.

Source: ``runtime.md`` sections 7.4, 8.5 and 8.6.
"""

from __future__ import annotations

import attrs

from convex_backend.interfaces import CallSpec, LogLine
from convex_backend.values.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_NESTING

MAX_ARGUMENT_BYTES = 16 * 1024 * 1024
MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_NESTED_DEPTH = 8
USER_SECONDS = 1.0
SYSCALL_SECONDS = 15.0
MEMORY_MEGABYTES = 64

USER_TIMEOUT_TEXT = "Function execution timed out (maximum duration: 1s)"
SYSCALL_TIMEOUT_TEXT = "Your request timed out performing too many system operations."
NODE_MEMORY_MEGABYTES = 512
MAX_NODE_BYTES = 5 * 1024 * 1024
NODE_ARGUMENTS_TEXT = (
    "Node actions arguments size is too large. The maximum size is 5 MiB. Reduce the size of the arguments or consider "
    "using Convex runtime actions instead, which have a 16 MiB limit. See https://docs.convex.dev/functions/runtimes"
)
DEPTH_TEXT = "Cross component call depth limit exceeded. Do you have an infinite loop in your app?"
HELP = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective "
    "index range expressions."
)

WARN_SHARE = 0.8


def memory_text(megabytes: int) -> str:
    """The text of a run that took more memory than *megabytes*."""
    return f"JavaScript execution ran out of memory (maximum memory usage: {megabytes} MB)"


MEMORY_TEXT = memory_text(MEMORY_MEGABYTES)


def timeout_text(seconds: float) -> str:
    """The text of a call that ran out of its wall limit of *seconds*."""
    return f"Function execution timed out (maximum duration: {seconds:g}s)"


def action_timeout_text(spec: CallSpec) -> str:
    """The text of an action that ran out of its wall limit (``runtime.md`` section 8.5)."""
    if spec.package:
        return f"Action `{spec.export}` execution timed out (maximum duration {spec.timeout_seconds:g}s)"
    return timeout_text(spec.timeout_seconds)


@attrs.frozen(slots=True)
class LimitWarning:
    """One row of the warnings table: what is counted and what is said near its limit.

    :param metric: member of the transaction's metrics that is compared, or ``""`` when the caller gives the figure.
    """

    code: str
    message: str
    limit: float
    unit: str = ""
    help: bool = False
    metric: str = ""

    def line(self, actual: float, timestamp: float) -> LogLine | None:
        """The WARN line when ``0.8 * limit < actual <= limit``, else ``None``. *timestamp* in ms."""
        if not WARN_SHARE * self.limit < actual <= self.limit:
            return None
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.message} (actual: {actual:g}{unit}, limit: {self.limit:g}{unit})."
        if isinstance(actual, int):
            text = f"{self.message} (actual: {actual}{unit}, limit: {self.limit}{unit})."
        if self.help:
            text = f"{text} {HELP}"
        return LogLine((text,), "WARN", timestamp, code=f"warning:{self.code}")


TRANSACTION_WARNINGS = (
    LimitWarning(
        "TooManyDocumentsRead",
        "Many documents read in a single function execution",
        32000,
        help=True,
        metric="documentsRead",
    ),
    LimitWarning(
        "TooManyReads", "Many reads in a single function execution", 4096, help=True, metric="databaseQueries"
    ),
    LimitWarning(
        "TooManyBytesRead", "Many bytes read in a single function execution", 16777216, "bytes", True, "bytesRead"
    ),
    LimitWarning("TooManyWrites", "Many writes in a single function execution", 16000, metric="documentsWritten"),
    LimitWarning(
        "TooManyBytesWritten",
        "Many bytes written in a single function execution",
        16777216,
        "bytes",
        metric="bytesWritten",
    ),
    LimitWarning(
        "TooManyFunctionsScheduled", "Many functions scheduled by this mutation", 1000, metric="functionsScheduled"
    ),
    LimitWarning(
        "ScheduledFunctionsArgumentsTooLarge",
        "Large total size of the arguments of scheduled functions from this mutation",
        16777216,
        "bytes",
        metric="scheduledFunctionArgsBytes",
    ),
)
ARGUMENTS_WARNING = LimitWarning(
    "TooLargeFunctionArguments", "Large size of the function arguments", MAX_ARGUMENT_BYTES, "bytes"
)
LARGE_DOCUMENT_CODE = "ValueTooLargeError"
NESTED_DOCUMENT_CODE = "TooNested"


def document_warnings(id: str, size: int, nesting: int, timestamp: float) -> list[LogLine]:
    """The warnings about one written document; *size* in bytes, *nesting* in levels."""
    rows = (
        (
            LimitWarning(LARGE_DOCUMENT_CODE, f'Large document written with ID "{id}"', MAX_DOCUMENT_BYTES, "bytes"),
            size,
        ),
        (
            LimitWarning(
                NESTED_DOCUMENT_CODE, f'Deeply nested document written with ID "{id}"', MAX_DOCUMENT_NESTING, "levels"
            ),
            nesting,
        ),
    )
    lines = [row.line(actual, timestamp) for row, actual in rows]
    return [line for line in lines if line is not None]


RESULT_WARNING = LimitWarning(
    "TooLargeFunctionResult", "Large size of the function return value", MAX_RESULT_BYTES, "bytes"
)
ACTION_ARGUMENTS_WARNING = LimitWarning(
    "FunctionArgumentsTooLarge", "Large size of the action arguments", MAX_ARGUMENT_BYTES, "bytes"
)
ACTION_RESULT_WARNING = LimitWarning(
    "TooLargeFunctionResult", "Large size of the action return value", MAX_RESULT_BYTES, "bytes"
)
MAX_HTTP_RESPONSE_BYTES = 20 * 1024 * 1024
HTTP_RESPONSE_WARNING = LimitWarning(
    "HttpResponseTooLarge", "Large response returned from an HTTP action", MAX_HTTP_RESPONSE_BYTES, "bytes"
)


def time_warning(cpu_seconds: float, timestamp: float) -> LogLine | None:
    """The warning of a query or mutation that used more than 80 % of its second of JS time."""
    if not WARN_SHARE * USER_SECONDS < cpu_seconds <= USER_SECONDS:
        return None
    actual = cpu_seconds * 1000
    text = (
        f"Function execution took a long time. (maximum duration: {USER_SECONDS:g}s, actual duration: {actual:.4f}ms)."
    )
    return LogLine((text,), "WARN", timestamp, code="warning:UserTimeout")
