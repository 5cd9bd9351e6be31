"""Which modules a child holds: each is sent once, the least recently used are forgotten beyond a bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import orjson

from convex_backend.functions import frames
from convex_backend.functions.calls import Slot
from convex_backend.functions.module_text import ModuleText
from convex_backend.interfaces import ModuleRef

MAX_MODULE_BYTES = 96 * 1024 * 1024
"""Sources held by one child."""


def has_modules(slot: Slot, closure: Iterable[ModuleRef]) -> bool:
    """Whether the child holds all of *closure*."""
    modules = slot.child.modules
    return all(ref.hash in modules for ref in closure)


async def send_modules(
    slot: Slot, closure: tuple[ModuleRef, ...], module_text: Callable[[str], Awaitable[ModuleText]]
) -> None:
    """Send what the child lacks of *closure*, each script before its map, and have it forget others if that is too much.

    :param module_text: source of a module by hash.
    """
    modules = slot.child.modules
    for ref in closure:
        if ref.hash in modules:
            modules[ref.hash] = modules.pop(ref.hash)
    for ref in closure:
        if ref.hash in modules:
            continue
        text = await module_text(ref.hash)
        if ref.hash in modules:
            # Another call that waited for the same module has sent it meanwhile.
            continue
        head = {"hash": ref.hash, "path": text.path, "kind": "script"}
        slot.child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source)
        size = len(text.source)
        if text.source_map is not None:
            head["kind"] = "map"
            slot.child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source_map)
            size += len(text.source_map)
        modules[ref.hash] = size
    _forget(slot, closure)


def _forget(slot: Slot, closure: tuple[ModuleRef, ...]) -> None:
    modules = slot.child.modules
    total = sum(modules.values())
    if total <= MAX_MODULE_BYTES:
        return
    kept = {ref.hash for ref in closure}
    for call in slot.calls.values():
        kept.update(ref.hash for ref in call.spec.closure)
    forgotten = []
    for hash_, size in list(modules.items()):
        if total <= MAX_MODULE_BYTES:
            break
        if hash_ not in kept:
            del modules[hash_]
            total -= size
            forgotten.append(hash_)
    if forgotten:
        slot.child.send(frames.FORGET, meta=orjson.dumps({"hashes": forgotten}))
