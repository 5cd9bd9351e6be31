"""Paths: modules, functions, components, references and function handles.

``dir/mod.js:f`` is canonical; ``dir/mod:f`` and, for a default export, ``dir/mod`` are what users see.
Source: ``runtime.md`` sections 1.2, 9.2, ``sync.md`` section 2.2, ``push.md`` section 4.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import attrs

from convex_backend.errors import BadRequest
from convex_backend.values.limits import identifier_error

MAX_COMPONENT_LENGTH: Final = 64
#: Of a whole module path. Anybody may ask for any function: what is longer is neither looked at nor remembered, as short ones are.
MAX_PATH_LENGTH: Final = 4096
ROOT_COMPONENT: Final = ""
REFERENCE_PREFIX: Final = "_reference/"
HANDLE_PREFIX: Final = "function://"

_COMPONENT_CHARACTERS: Final = re.compile(r"[A-Za-z0-9_.]+")
_ALPHANUMERIC: Final = re.compile(r"[A-Za-z0-9]")


class InvalidPath(BadRequest):
    """A text that is no path; ``reason`` is the fault alone."""

    def __init__(self, code: str, text: str, what: str, reason: str) -> None:
        shown = text if len(text) <= 2 * MAX_PATH_LENGTH else f"{text[:MAX_COMPONENT_LENGTH]}..."
        super().__init__(code, f"{shown} is not a valid path to a Convex {what}. {reason}")
        self.reason = reason


def _component_error(component: str) -> str | None:
    """Why *component*, a part of a module path, is not allowed."""
    if len(component) > MAX_COMPONENT_LENGTH:
        return (
            f"Path component is too long ({len(component)} > maximum {MAX_COMPONENT_LENGTH}): "
            f"{component[:MAX_COMPONENT_LENGTH]}..."
        )
    if component and not _COMPONENT_CHARACTERS.fullmatch(component):
        return f"Path component {component} can only contain alphanumeric characters, underscores, or periods."
    if not _ALPHANUMERIC.search(component):
        return f"Path component {component} must have at least one alphanumeric character."
    return None


def _parse_module(text: str) -> tuple[str | None, str]:
    """(reason why not, ""), or (``None``, canonical path)."""
    if not text:
        return "Module paths cannot be empty.", ""
    if text.startswith("/"):
        return "Module paths must be relative.", ""
    if len(text) > MAX_PATH_LENGTH:
        return f"Path is too long ({len(text)} > maximum {MAX_PATH_LENGTH}).", ""
    bare = text.removesuffix(".js")
    components = bare.split("/")
    for component in components:
        if component in (".", ".."):
            return f"Module paths must be canonicalized: {component} is not allowed.", ""
        reason = _component_error(component)
        if reason:
            return reason, ""
    if bare == text and "." in components[-1].lstrip("."):
        return f"Module paths can only have the extension js: {components[-1]}", ""
    return None, f"{bare}.js"


@lru_cache(maxsize=8192)
def parse_module_path(text: str) -> str:
    """:returns: the canonical path of a module, ``dir/mod.js``.
    :raises InvalidPath: code ``BadConvexModuleIdentifier``.
    """
    reason, path = _parse_module(text)
    if reason is not None:
        raise InvalidPath("BadConvexModuleIdentifier", text, "module", reason)
    return path


@attrs.frozen(slots=True)
class ModulePath:
    """A module: ``path`` is canonical, ``dir/mod.js``."""

    path: str

    @classmethod
    def parse(cls, text: str) -> ModulePath:
        """:raises InvalidPath: code ``BadConvexModuleIdentifier``."""
        return cls(parse_module_path(text))

    @property
    def stripped(self) -> str:
        """``dir/mod``."""
        return self.path[:-3]

    @property
    def is_system(self) -> bool:
        """Whether it is built in: open to admins only."""
        return self.path.startswith("_system/")

    @property
    def is_deps(self) -> bool:
        """Whether it is a shared chunk, never run directly."""
        return self.path.startswith(("_deps/", "actions/_deps/"))

    def __str__(self) -> str:
        return self.path


@attrs.frozen(slots=True)
class FunctionPath:
    """A function: canonical module path and export name.

    :param module: ``dir/mod.js``.
    :param name: export name, ``default`` when the text names none.
    :param canonical: ``dir/mod.js:f``.
    :param stripped: what users see: ``dir/mod:f``, or ``dir/mod`` for ``default``.
    """

    module: str
    name: str
    canonical: str = attrs.field(eq=False)
    stripped: str = attrs.field(eq=False)

    @classmethod
    def of(cls, module: str, name: str) -> FunctionPath:
        """:param module: canonical module path."""
        bare = module.removesuffix(".js")
        return cls(module, name, f"{module}:{name}", bare if name == "default" else f"{bare}:{name}")

    @staticmethod
    def parse(text: str) -> FunctionPath:
        """Parse any spelling; the most recent results are kept.

        :raises InvalidPath: code ``BadConvexFunctionIdentifier``.
        """
        return _parse_function(text)

    @property
    def is_system(self) -> bool:
        """Whether it is built in: open to admins only."""
        return self.module.startswith("_system/")

    @property
    def is_deps(self) -> bool:
        """Whether it names a shared chunk, which is never run directly."""
        return self.module.startswith(("_deps/", "actions/_deps/"))

    def __str__(self) -> str:
        return self.canonical


@lru_cache(maxsize=8192)
def _parse_function(text: str) -> FunctionPath:
    module, colon, name = text.rpartition(":")
    if not colon:
        module, name = text, "default"
    reason, path = _parse_module(module)
    reason = reason or identifier_error(name)
    if reason is not None:
        raise InvalidPath("BadConvexFunctionIdentifier", text, "function", reason)
    return FunctionPath.of(path, name)


def parse_component_path(text: str | None) -> str:
    """Parse the path of a component instance: names joined by ``/``, the root is the empty text.

    :param text: ``None`` means the root.
    :returns: the canonical path.
    :raises InvalidPath: code ``InvalidComponentPath``.
    """
    if not text:
        return ROOT_COMPONENT
    for name in text.split("/"):
        reason = identifier_error(name)
        if reason:
            raise InvalidPath("InvalidComponentPath", text, "component", reason)
    return text


@attrs.frozen(slots=True)
class Reference:
    """A parsed ``_reference/…``.

    :param kind: ``function``, ``childComponent``, ``componentArgument`` or ``currentSystemUdfInComponent``.
    :param function: of kind ``function``, else ``None``.
    :param parts: of the other kinds: ``(child name, *path, export)``, ``(argument name, …)``, ``(component id,)``.
    """

    kind: str
    function: FunctionPath | None = None
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The text of the reference, in its canonical spelling."""
        rest = self.function.stripped if self.function else "/".join(self.parts)
        return f"{REFERENCE_PREFIX}{self.kind}/{rest}"


def parse_reference(text: str) -> Reference:
    """Parse ``_reference/function/<path>``, ``_reference/childComponent/<name>/<path…>/<export>``,
    ``_reference/componentArgument/<name>``, ``_reference/currentSystemUdfInComponent/<id>``.

    :raises BadRequest: code ``InvalidReference``; of a bad function path, ``BadConvexFunctionIdentifier``.
    """
    if not text.startswith(REFERENCE_PREFIX):
        raise BadRequest("InvalidReference", f"Invalid reference: {text}")
    kind, _, rest = text[len(REFERENCE_PREFIX) :].partition("/")
    if kind == "function":
        return Reference(kind, function=FunctionPath.parse(rest))
    parts = tuple(rest.split("/"))
    if kind == "currentSystemUdfInComponent":
        if not rest or len(parts) != 1:
            raise BadRequest("InvalidReference", f"Invalid reference: {text}")
        return Reference(kind, parts=parts)
    if kind in ("childComponent", "componentArgument"):
        for part in parts:
            error = identifier_error(part)
            if error:
                raise BadRequest("InvalidReference", f"Invalid reference: {text}. {error}")
        return Reference(kind, parts=parts)
    raise BadRequest("InvalidReference", f"Invalid reference: {text}")


def parse_function_handle(text: str) -> tuple[str, str | None]:
    """Parse ``function://<id>#<stripped path>``; the fragment is advisory and absent from old handles.

    :returns: the handle's document id, and the fragment or ``None``.
    :raises BadRequest: code ``InvalidFunctionHandle``.
    """
    identifier, hash_mark, fragment = text.removeprefix(HANDLE_PREFIX).partition("#")
    if not text.startswith(HANDLE_PREFIX) or not identifier:
        raise BadRequest("InvalidFunctionHandle", "Function handle not found")
    return identifier, fragment if hash_mark else None
