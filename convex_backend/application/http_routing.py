"""Which component answers an HTTP request: exact routes, then the longest of prefix routes and mounts (``runtime.md`` section 9.10).

::

    path ── app's httpPrefix stripped ──► exact route of http.js ──► the longest prefix ─┬─ of http.js ──► its router
                                                                                         └─ of a mount ──► the child, with what is left of the path
    nothing matched ──► http.js if there is one: routers may know more than they list

The routes of ``http.js`` are only looked at where a mount may compete: its own router has the last word on what it handles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from convex_backend.application.components import ROOT
from convex_backend.functions.directory import ResolvedFunction
from convex_backend.interfaces import ModuleRef
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.application.code_state import CodeState, ModuleRecord
    from convex_backend.application.components import HttpSite
    from convex_backend.application.directory import Directory

HTTP_MODULE: Final = "http.js"
#: Deeper than any tree of components that a push accepts.
_MAX_DEPTH = 64


@attrs.frozen(slots=True)
class HttpTarget:
    """The ``http.js`` of *component* decides, with *path*: what mounts and prefixes have left of the request's path, with a leading slash."""

    component: int
    component_path: str
    path: str


@attrs.frozen(slots=True)
class NoTarget:
    """Nothing answers.

    :param enabled: the deployment has HTTP actions, but none for this path.
    """

    enabled: bool


def find_target(
    site_of: Callable[[int], HttpSite | None],
    has_router: Callable[[int], bool],
    root: int,
    method: str,
    path: str,
) -> HttpTarget | NoTarget:
    """Find who answers.

    :param site_of: routes and mounts of a component.
    :param has_router: whether a component has an ``http.js``.
    :param root: where every request begins.
    :param method: as the client sent it; HEAD is routed as GET.
    :param path: raw, with a leading slash, without the query.
    """
    method = "GET" if method == "HEAD" else method
    component = root
    for _ in range(_MAX_DEPTH):
        site = site_of(component)
        routed = has_router(component)
        if site is None or not (routed or site.mounts):
            return NoTarget(enabled=component != root)
        own = _own_path(site.prefix, path) if routed else None
        mount = max(
            (one for one in site.mounts if path.startswith(one.prefix)), key=lambda one: len(one.prefix), default=None
        )
        if own is not None and (mount is None or _goes_first(site, method, own, len(mount.prefix))):
            return HttpTarget(component, site.component_path, own)
        if mount is None:
            return NoTarget(enabled=True)
        component, path = mount.component, "/" + path[len(mount.prefix) :]
    return NoTarget(enabled=True)


def _own_path(prefix: str, path: str) -> str | None:
    """What the component's own router sees of *path*; ``None``: it is not under the prefix."""
    return "/" + path[len(prefix) :] if path.startswith(prefix) else None


def _goes_first(site: HttpSite, method: str, own: str, mount_length: int) -> bool:
    """Whether ``http.js`` goes before a mount whose prefix has *mount_length* characters."""
    # The prefix of the app counts: both lengths are of the path as the client sent it.
    offset = len(site.prefix) - 1
    for route_method, route in site.routes:
        if route_method != method:
            continue
        if route == own:
            return True
        if route.endswith("/*") and own.startswith(route[:-1]) and offset + len(route) - 1 >= mount_length:
            return True
    return False


class HttpRouting:
    """The deployed routers, by the state of the code.

    :param directory: the code as deployed.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._state: CodeState | None = None
        self._sites: dict[int, HttpSite | None] = {}
        self._routers: dict[int, ResolvedFunction | None] = {}

    async def find(self, method: str, path: str) -> tuple[HttpTarget, ResolvedFunction] | NoTarget:
        """Who answers, and the function that it is: the ``http.js`` of a component. See :func:`find_target`."""
        if self._directory.newest is not self._state:
            # The newest state may be of a push that is not durable yet.
            await self._directory.http_site(ROOT)
            self._state = self._directory.newest
            self._sites, self._routers = {}, {}
        found = find_target(self._site, lambda component: self._router(component) is not None, ROOT, method, path)
        if isinstance(found, NoTarget):
            return found
        function = self._router(found.component)
        assert function is not None
        return found, function

    def _site(self, component: int) -> HttpSite | None:
        if component not in self._sites:
            assert self._state is not None
            self._sites[component] = self._state.http_site(component)
        return self._sites[component]

    def _router(self, component: int) -> ResolvedFunction | None:
        if component not in self._routers:
            assert self._state is not None
            module = self._state.modules.get((component, HTTP_MODULE))
            self._routers[component] = None if module is None else _router_of(module)
        return self._routers[component]


def _router_of(module: ModuleRecord) -> ResolvedFunction:
    tree = module.stored.tree()
    return ResolvedFunction(
        component=module.component,
        component_path=module.component_path,
        path=FunctionPath.of(HTTP_MODULE, "default"),
        kind="httpAction",
        visibility="public",
        args=None,
        returns=None,
        # HTTP actions may import dynamically.
        closure=tuple(ModuleRef(name, digest) for name, digest in tree.get("dynamicClosure", ())),
        import_seed=module.config.seed,
        import_ms=float(module.config.time_ns // 1_000_000),
    )
