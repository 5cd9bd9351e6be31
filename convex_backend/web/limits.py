"""The most bytes that each route takes (``http_api.md`` sections 3 to 6)."""

from __future__ import annotations

MIB = 1024 * 1024
#: Function calls: 16 MiB of arguments and the envelope.
CALL_BYTES = 16 * MIB + 2000
PUSH_BYTES = 200_000_000
ECHO_BYTES = 128 * MIB
HTTP_ACTION_BYTES = 20 * MIB
SMALL_BYTES = 2 * MIB

#: Body caps by the start of the path; the first that fits decides.
BODY_CAPS: tuple[tuple[bytes, int], ...] = (
    (b"/api/deploy2/", PUSH_BYTES),
    (b"/api/query", CALL_BYTES),
    (b"/api/mutation", CALL_BYTES),
    (b"/api/action", CALL_BYTES),
    (b"/api/function", CALL_BYTES),
    (b"/api/run", CALL_BYTES),
    (b"/echo", ECHO_BYTES),
    (b"/http/", HTTP_ACTION_BYTES),
)


def body_cap(path: bytes) -> int:
    """The most bytes that a request body of *path* may have on the wire."""
    for prefix, cap in BODY_CAPS:
        if path.startswith(prefix):
            return cap
    return SMALL_BYTES
