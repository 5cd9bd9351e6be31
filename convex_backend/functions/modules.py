"""Hashes and closures of pushed modules.

Source: ``push.md`` section 3 (the hash that the CLI compares); A8 and F3 (what a run depends on).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from convex_backend.functions.module_text import ModuleText
from convex_backend.interfaces import ModuleRef


def upload_hash(source: str, source_map: str | None) -> str:
    """The hash by which the CLI knows whether a module has changed: hex SHA-256 of source and source map."""
    return hashlib.sha256(f"{source}{source_map or ''}".encode()).hexdigest()


def runnable_hash(path: str, source: str, source_map: str | None) -> str:
    """The hash of what a child runs. The path belongs to it: it is in every stack frame, and relative imports start from it."""
    digest = hashlib.sha256()
    for part in (path, source, source_map or ""):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def module_text(path: str, source: str, source_map: str | None) -> ModuleText:
    """One pushed module as children load it."""
    return ModuleText(
        runnable_hash(path, source, source_map),
        path,
        source.encode(),
        source_map.encode() if source_map is not None else None,
    )


def closure_refs(closure: Iterable[str], hashes: Mapping[str, str]) -> tuple[ModuleRef, ...]:
    """The refs of a closure, as :class:`CallSpec` wants them, in path order.

    :param closure: paths that static imports reach, as the analysis found them.
    :param hashes: runnable hashes of all modules of the component by path.
    :raises KeyError: the closure names a module that is not there.
    """
    return tuple(ModuleRef(path, hashes[path]) for path in sorted(set(closure)))
