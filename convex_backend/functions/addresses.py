"""Which function a syscall means: a name, a reference or a function handle, seen from the function that runs.

::

    functionHandle  function://<id>#<path>                          any function of the deployment, whatever its visibility
    name            dir/mod:f                                       of the caller's own component
    reference       _reference/function/dir/mod:f                   likewise
                    _reference/childComponent/<name>/<mod…>/<f>     a public function of a child component

Given more than one, the first of these counts. :func:`resolve_address` is what every service uses that takes a function (nested calls, the
scheduler, handles). Source: ``runtime.md`` sections 2.3 ("addr") and 9.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from convex_backend.errors import BadRequest, NotFound
from convex_backend.functions.syscalls import A_H, invalid_argument, invalid_arguments
from convex_backend.values.paths import HANDLE_PREFIX, FunctionPath, parse_function_handle, parse_reference

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext
    from convex_backend.functions.directory import FunctionDirectory


@attrs.frozen(slots=True)
class Address:
    """A function as a caller named it; whether it exists has not been looked at, unless it was named by a reference to a child or by a handle.

    :param component: internal id of the function's component, ``component_path`` its path.
    :param reference: the text of the reference, if it was one.
    """

    component: int
    component_path: str
    path: FunctionPath
    reference: str | None = None


async def resolve_address(context: CallContext, tree: dict[str, Any], call: str) -> Address:
    """The function that a syscall's arguments name.

    :param tree: the arguments. :param call: what error texts call the operation: ``runQuery``, ``scheduler``, …
    :raises BadRequest: there is none, or it is malformed; code ``InvalidReference`` for one that leads nowhere.
    """
    here = context.function
    handle = tree.get("functionHandle")
    if handle is not None:
        if type(handle) is not str:
            raise invalid_argument("functionHandle", call, "expected a string")
        return await resolve_handle(context.tree.services.directory, context.transaction, handle)
    name = tree.get("name")
    if name is not None:
        if type(name) is not str:
            raise invalid_argument("name", call, "expected a string")
        if name.startswith(HANDLE_PREFIX):
            return await resolve_handle(context.tree.services.directory, context.transaction, name)
        try:
            return Address(here.component, here.component_path, FunctionPath.parse(name))
        except BadRequest as error:
            raise invalid_argument("name", call, error) from None
    text = tree.get("reference")
    if text is None:
        raise invalid_arguments(call, "Missing required argument 'name'")
    if type(text) is not str:
        raise invalid_argument("reference", call, "expected a string")
    reference = parse_reference(text)
    if reference.function is not None:
        path = reference.function
        if context.kind in A_H and await context.tree.services.directory.resolve(None, here.component, path) is None:
            parts = ("api", *path.module.removesuffix(".js").split("/"), path.name)
            raise _leads_nowhere(context, parts, "")
        return Address(here.component, here.component_path, path, text)
    if reference.kind != "childComponent" or len(reference.parts) < 2:
        raise BadRequest("InvalidReference", "Cannot execute a value resource")
    return await _child_address(context, reference.parts, text)


async def resolve_handle(directory: FunctionDirectory, transaction: Any, handle: str) -> Address:
    """The function behind a handle.

    :param transaction: what was looked at is recorded as read there; ``None`` looks at the newest durable state.
    :raises NotFound: it is malformed, unknown, or its function is no longer deployed.
    """
    try:
        identifier, _ = parse_function_handle(handle)
    except BadRequest:
        raise _unknown_handle() from None
    found = await directory.function_of_handle(transaction, identifier)
    if found is None:
        raise _unknown_handle()
    component, path = found
    if await directory.resolve(transaction, component, path) is None:
        raise _unknown_handle()
    return Address(component, directory.component_path(component), path)


def _unknown_handle() -> NotFound:
    return NotFound("FunctionHandleNotFound", "Function handle not found")


async def _child_address(context: CallContext, parts: tuple[str, ...], text: str) -> Address:
    child, *names = parts
    here = context.function
    directory = context.tree.services.directory
    component = await directory.child_component(context.transaction, here.component, child)
    if component is None:
        raise _leads_nowhere(context, parts, f'Child component ComponentName(Identifier("{child}")) not found')
    *module, export = names
    path = FunctionPath.parse(f"{'/'.join(module)}:{export}" if module else export)
    component_path = f"{here.component_path}/{child}" if here.component_path else child
    function = await directory.resolve(context.transaction, component, path)
    if function is None or function.visibility != "public":
        shown = ", ".join(f'Identifier("{name}")' for name in names)
        text = f'Child component ComponentName(Identifier("{child}")) does not export [{shown}]'
        raise _leads_nowhere(context, parts, text)
    return Address(component, component_path, path, text)


def _leads_nowhere(context: CallContext, parts: tuple[str, ...], text: str) -> BadRequest:
    """Actions are told the reference only (section 9.2)."""
    if context.kind in A_H:
        text = f"Couldn't resolve {'.'.join(parts)}"
    return BadRequest("InvalidReference", text)
