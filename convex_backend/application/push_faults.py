"""Failures of a push as the CLI shows them: codes, and the words around the reason (``push.md`` sections 2 and 5 to 7)."""

from __future__ import annotations

from typing import Final

from convex_backend.application.env_declarations import PUSH_PREFIX
from convex_backend.errors import BadRequest, ConvexError

_MODULES_PREFIX: Final = "Loading the pushed modules encountered the following\n    error:\n"


class PushRefused(BadRequest):
    """One module of a push is at fault.

    :param module: its path. :param reason: the fault without the words that the CLI shows around it.
    :param location: path and line (from 1) of the fault, which may be in another module; ``None`` when unknown.
    """

    def __init__(self, code: str, message: str, module: str, cause: ConvexError) -> None:
        super().__init__(code, message)
        self.module = module
        self.reason = cause.message
        self.location: tuple[str, int] | None = getattr(cause, "location", None)


def push_error(error: ConvexError, code: str, prefix: str = "", *, module: str) -> BadRequest:
    """An evaluation failure as the CLI shows it."""
    return PushRefused(code, f"{PUSH_PREFIX}{prefix}{error.message}", module, error)


def module_error(path: str, error: BadRequest) -> BadRequest:
    """The failure of a module's evaluation as the CLI shows it."""
    message = error.message
    if error.code not in ("InvalidModules", "InvalidFunctionName", "InvalidCron"):
        return PushRefused(error.code, PUSH_PREFIX + message, path, error)
    if not message.startswith("Failed to analyze"):
        message = f"Failed to analyze {path}: {message}"
    return PushRefused(error.code, f"{PUSH_PREFIX}{_MODULES_PREFIX}{message}", path, error)


def schema_code(error: BadRequest) -> str:
    """The code of a failure of ``schema.js`` (``push.md`` section 6)."""
    if error.code != "InvalidModules":
        return error.code
    if "missing default export" in error.message:
        return "MissingSchemaExportError"
    if "isn't a Convex schema" in error.message:
        return "InvalidSchemaExport"
    return "InvalidSchema"


def auth_code(error: ConvexError) -> str:
    """The code of a failure of ``auth.config.js`` (``push.md`` section 7.1)."""
    if error.code != "InvalidModules":
        return error.code
    if "is used in auth config file but its value was not set" in error.message:
        return "AuthConfigMissingEnvironmentVariable"
    if "missing default export" in error.message:
        return "AuthConfigMissingExportError"
    return "InvalidAuthConfig"
