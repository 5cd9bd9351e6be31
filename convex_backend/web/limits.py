"""The most bytes that each route takes (``http_api.md`` sections 1 to 6, ``push.md`` section 2)."""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024
#: Function calls: 16 MiB of arguments and the envelope.
CALL_BYTES: Final = 16 * MIB + 2000
PUSH_BYTES: Final = 200_000_000
#: Deploys without the CLI: hand-written modules.
DEPLOY_BYTES: Final = 32 * MIB
ECHO_BYTES: Final = 128 * MIB
HTTP_ACTION_BYTES: Final = 20 * MIB
SMALL_BYTES: Final = 2 * MIB
#: Files go to the disk as they come.
FILE_BYTES: Final = 1 << 62

#: Body caps by the start of the path; the first that fits decides.
BODY_CAPS: Final[tuple[tuple[bytes, int], ...]] = (
    (b"/api/query", CALL_BYTES),
    (b"/api/mutation", CALL_BYTES),
    (b"/api/action", CALL_BYTES),
    (b"/api/function", CALL_BYTES),
    (b"/api/run", CALL_BYTES),
    (b"/api/deploy2/", PUSH_BYTES),
    (b"/api/deploy", DEPLOY_BYTES),
    (b"/echo", ECHO_BYTES),
    (b"/api/storage/upload", FILE_BYTES),
    (b"/http/", HTTP_ACTION_BYTES),
)

#: Routes that take bodies as they arrive, by the start of the path.
STREAMED: Final[tuple[bytes, ...]] = (b"/http/", b"/api/storage/upload")


def body_cap(path: bytes) -> int:
    """The most bytes that a request body of *path* may have, on the wire and unpacked.

    :param path: request target without doubled slashes at its start; a query string after it does no harm.
    """
    for prefix, cap in BODY_CAPS:
        if path.startswith(prefix):
            return cap
    return SMALL_BYTES
