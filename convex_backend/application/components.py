"""The tree of components as it is stored: one row of ``_components`` for each instance that was ever mounted.

A component keeps its internal id and its path for as long as it exists, mounted or not (A2), so its tables, files and jobs outlive a push that
leaves it out and are there again when it comes back. States::

    new ──finish_push──► active ──push without it──► unmounted ──push with it──► active
     │                                                  │
     └── abandoned push: taken up by the next           └── delete_component: gone, with everything that it has

:class:`ComponentTree` is immutable; ``directory.CodeState`` holds the one of its moment. Source: ``push.md`` section 7.4, ``runtime.md``
sections 2.6 and 9.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.database.system_tables import COMPONENTS
from convex_backend.values.ids import decode_id
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.sort_key import encode_key

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

ROOT: Final = 0

NEW: Final = "new"
ACTIVE: Final = "active"
UNMOUNTED: Final = "unmounted"

_BY_PATH: Final = COMPONENTS.index("by_path").id


def component_point(path: str) -> tuple[int, bytes]:
    """The read that "which component is at *path*, and how is it set up" makes, whether there is one or not."""
    return _BY_PATH, encode_key((path,))


async def component_with_identifier(transaction: Transaction, identifier: str) -> int | None:
    """The component, mounted or not, whose public id is *identifier*; ``None`` when there is none."""
    try:
        number, row_id = decode_id(identifier)
    except InvalidValue:
        return None
    found = await transaction.system.get(COMPONENTS.name, row_id) if number == COMPONENTS.number else None
    return None if found is None else int(found[1]["component"])


def child_path(parent: str, name: str) -> str:
    """The path of a child called *name*."""
    return f"{parent}/{name}" if parent else name


@attrs.frozen(slots=True)
class Component:
    """One instance of a component, or the app (id 0, path ``""``).

    :param id: internal id. :param parent: that of its parent, ``None`` for the app. :param name: what the parent calls it.
    :param state: ``new``, ``active`` or ``unmounted``.
    :param definition: path of its definition (``push.md`` section 4), ``""`` for the app.
    :param http_prefix: where its HTTP routes begin on the site, ``/a/b/`` with all prefixes above it; of the app the prefix of its own routes
        only. ``None``: not reachable over HTTP (the app without a prefix: ``/``).
    :param mounts: (prefix inside this component's own space, name of the child) pairs, as ``definition.httpMounts`` has them.
    :param env: bindings by variable: ``{"type": "value", "value"}`` or ``{"type": "envVar", "name"}`` of the parent.
    :param args: arguments of older definitions by name, as JSON values.
    :param declarations: the environment variables that its definition declares, as ``definition.envVars``.
    """

    id: int
    path: str
    parent: int | None
    name: str | None
    state: str
    definition: str = ""
    http_prefix: str | None = None
    mounts: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    args: Mapping[str, Any] = attrs.field(factory=dict)
    declarations: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The row without system fields."""
        return {
            "component": self.id,
            "path": self.path,
            "parent": self.parent,
            "name": self.name,
            "state": self.state,
            "definition": self.definition,
            "httpPrefix": self.http_prefix,
            "httpMounts": _text([list(mount) for mount in self.mounts]),
            "env": _text({name: dict(binding) for name, binding in self.env.items()}),
            "args": _text(dict(self.args)),
            "envVars": _text([[name, dict(declared)] for name, declared in self.declarations]),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Component:
        """Of a stored row, one from before there were components included."""
        return cls(
            id=row["component"],
            path=row["path"],
            parent=row["parent"],
            name=row["name"],
            state=row["state"],
            definition=row.get("definition") or "",
            http_prefix=row.get("httpPrefix"),
            mounts=tuple((prefix, name) for prefix, name in _tree(row, "httpMounts", [])),
            env=_tree(row, "env", {}),
            args=_tree(row, "args", {}),
            declarations=tuple((name, declared) for name, declared in _tree(row, "envVars", [])),
        )


def _text(tree: Any) -> str | None:
    return orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode() if tree else None


def _tree(row: Mapping[str, Any], name: str, default: Any) -> Any:
    text = row.get(name)
    return default if text is None else orjson.loads(text)


@attrs.frozen(slots=True)
class HttpMount:
    """A child whose HTTP routes are reached under *prefix*.

    :param prefix: in the space of the parent, ``/local/``; a request's path without it (but with a leading ``/``) is what the child routes.
    """

    prefix: str
    component: int


@attrs.frozen(slots=True)
class HttpSite:
    """What the routing of one component needs (``http_api.md`` section 4).

    An exact route of ``http.js`` goes first, then the longest prefix among the prefix routes of ``http.js`` and the mounts; a mount strips its
    prefix and goes on in its component.

    :param component: internal id; ``component_path`` its path.
    :param prefix: prefix of the component's **own** routes (the app's ``httpPrefix``), ``/`` without one; mounts are not under it.
    :param routes: (method, path) of ``http.js`` as written, prefix routes as ``/files/*``; empty without an ``http.js``.
    :param mounts: of its mounted children.
    """

    component: int
    component_path: str
    prefix: str
    routes: tuple[tuple[str, str], ...]
    mounts: tuple[HttpMount, ...]


@attrs.frozen(slots=True, eq=False)
class ComponentTree:
    """All components that there are. Never changed.

    :param by_id: by internal id; ``by_path`` by path; ``ids`` of the rows by internal row id; ``documents`` document ids of the rows.
    """

    by_id: Mapping[int, Component]
    by_path: Mapping[str, Component]
    ids: Mapping[bytes, int]
    documents: Mapping[int, str]

    @classmethod
    def empty(cls) -> ComponentTree:
        """The tree of a deployment that has the app only."""
        root = Component(ROOT, "", None, None, ACTIVE)
        return cls({ROOT: root}, {"": root}, {}, {})

    def apply(self, changes: Iterable[tuple[bytes, Mapping[str, Any] | None]]) -> ComponentTree:
        """The tree after changes of rows: ``(internal row id, new row or None)``."""
        by_id, ids, documents = dict(self.by_id), dict(self.ids), dict(self.documents)
        for row_id, row in changes:
            gone = ids.pop(row_id, None)
            if gone is not None:
                by_id.pop(gone, None)
                documents.pop(gone, None)
            if row is not None:
                component = Component.from_row(row)
                by_id[component.id] = component
                ids[row_id] = component.id
                documents[component.id] = row["_id"]
        return ComponentTree(by_id, {one.path: one for one in by_id.values()}, ids, documents)

    def active(self) -> list[Component]:
        """Those that are mounted, by path; the app is the first."""
        found = [one for one in self.by_id.values() if one.state == ACTIVE]
        return sorted(found, key=lambda one: one.path)

    def path_of(self, component: int) -> str:
        """:raises KeyError: there is no such component."""
        return self.by_id[component].path

    def child(self, component: int, name: str) -> Component | None:
        """The mounted child of *component* that is called *name*."""
        parent = self.by_id.get(component)
        found = self.by_path.get(child_path(parent.path, name)) if parent is not None else None
        return found if found is not None and found.state == ACTIVE else None

    def source_of_variable(self, component: int, name: str) -> tuple[list[str], str | None]:
        """Where a component's variable comes from.

        :returns: the paths of the components whose bindings say so, and the name of the user's variable behind it, ``None`` when it is bound to
            a text or not bound at all.
        """
        looked_at: list[str] = []
        while component != ROOT:
            found = self.by_id.get(component)
            if found is None:
                return looked_at, None
            looked_at.append(found.path)
            binding = found.env.get(name)
            if binding is None or binding["type"] != "envVar" or found.parent is None:
                return looked_at, None
            component, name = found.parent, binding["name"]
        return looked_at, name

    def bound_variables(self, component: int, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables that *component* was given by its parent; of the app, the user's.

        :param variables: the user's.
        """
        if component == ROOT:
            return dict(variables)
        found = self.by_id[component]
        above = self.bound_variables(found.parent, variables) if found.parent is not None else {}
        bound: dict[str, str] = {}
        for name, binding in found.env.items():
            value = binding["value"] if binding["type"] == "value" else above.get(binding["name"])
            if value is not None:
                bound[name] = value
        return bound

    def variables_of(self, component: int, variables: Mapping[str, str], built_in: Mapping[str, str]) -> dict[str, str]:
        """All that a component sees as ``process.env``: what it was given over the built-in ones.

        The site's URL of a component that is reachable over HTTP is that of its own routes.
        """
        found = self.by_id[component]
        system = dict(built_in)
        if component != ROOT and found.http_prefix is not None and "CONVEX_SITE_URL" in system:
            system["CONVEX_SITE_URL"] += found.http_prefix.rstrip("/")
        return {**system, **self.bound_variables(component, variables)}
