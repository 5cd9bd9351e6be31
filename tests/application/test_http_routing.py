"""Which component answers a path (``runtime.md`` 9.10): a tree of sites, no server."""

from __future__ import annotations

import pytest

from convex_backend.application.components import HttpMount, HttpSite
from convex_backend.application.http_routing import HttpTarget, NoTarget, find_target


def site(
    component: int,
    *routes: str,
    mounts: dict[str, int] | None = None,
    prefix: str = "/",
) -> HttpSite:
    """*routes* are texts ``METHOD /path``."""
    pairs = tuple((method, path) for method, _, path in (route.partition(" ") for route in routes))
    return HttpSite(
        component,
        "" if component == 0 else f"c{component}",
        prefix,
        pairs,
        tuple(HttpMount(start, child) for start, child in (mounts or {}).items()),
    )


def find(
    sites: list[HttpSite], path: str, method: str = "GET", routers: set[int] | None = None
) -> tuple[int, str] | bool:
    """Component and path, or whether HTTP actions are enabled at all."""
    known = {one.component: one for one in sites}
    having = {one.component for one in sites if one.routes} if routers is None else routers
    found = find_target(known.get, lambda component: component in having, 0, method, path)
    if isinstance(found, NoTarget):
        return found.enabled
    assert isinstance(found, HttpTarget)
    assert found.component_path == known[found.component].component_path
    return found.component, found.path


def test_nothing_deployed() -> None:
    """Without ``http.js`` and mounts HTTP actions are not enabled."""
    assert find([site(0)], "/x") is False


def test_app_alone() -> None:
    """Whatever the path, the app's router decides: it may know more than it lists."""
    only = [site(0, "GET /a", "POST /b/*")]
    for path in ("/a", "/b/c", "/unknown", "/", "/a/"):
        assert find(only, path) == (0, path)


def test_mounts() -> None:
    """A mount takes what is under its prefix, less the prefix; mounts nest."""
    tree = [
        site(0, mounts={"/one/": 1}),
        site(1, "GET /x", mounts={"/two/": 2}),
        site(2, "GET /y"),
    ]
    assert find(tree, "/one/x") == (1, "/x")
    assert find(tree, "/one/") == (1, "/")
    assert find(tree, "/one/two/y/z") == (2, "/y/z")
    assert find(tree, "/one/twofold") == (1, "/twofold")
    assert find(tree, "/one") is True
    assert find(tree, "/elsewhere") is True


@pytest.mark.parametrize(
    ("path", "method", "component"),
    [
        ("/m/exact", "GET", 0),
        ("/m/exact", "HEAD", 0),
        ("/m/exact", "POST", 1),
        ("/m/other", "GET", 1),
        ("/m/deep/x", "GET", 0),
        ("/m/deep", "GET", 1),
        ("/m/deep/er/x", "GET", 2),
        ("/m/deep/er/x", "PUT", 2),
        ("/z", "GET", 0),
    ],
)
def test_competition(path: str, method: str, component: int) -> None:
    """An exact route of the method goes first, then the longest prefix of routes and mounts, whichever has it."""
    tree = [
        site(0, "GET /m/exact", "GET /m/deep/*", "GET /*", mounts={"/m/": 1, "/m/deep/er/": 2}),
        site(1, "GET /x"),
        site(2, "GET /x"),
    ]
    found = find(tree, path, method)
    assert isinstance(found, tuple)
    assert found[0] == component


def test_prefix_of_the_app() -> None:
    """``httpPrefix`` is of the app's own routes only, and counts as part of their length."""
    tree = [
        site(0, "GET /exact", "GET /deep/*", mounts={"/m/": 1, "/api/deep/": 1, "/api/": 2}, prefix="/api/"),
        site(1, "GET /x"),
        site(2, "GET /x"),
    ]
    assert find(tree, "/api/exact") == (0, "/exact")
    assert find(tree, "/exact") is True
    assert find(tree, "/m/exact") == (1, "/exact")
    assert find(tree, "/api/deep/x") == (0, "/deep/x")
    assert find(tree, "/api/other") == (2, "/other")


def test_app_with_prefix_alone() -> None:
    """A path outside the prefix is nobody's, one inside goes to the router."""
    only = [site(0, "GET /a", prefix="/api/")]
    assert find(only, "/api/a") == (0, "/a")
    assert find(only, "/api/") == (0, "/")
    assert find(only, "/a") is True
    assert find(only, "/api") is True


def test_component_without_a_router() -> None:
    """A mounted component without ``http.js`` answers nothing."""
    tree = [site(0, "GET /a", mounts={"/m/": 1}), site(1)]
    assert find(tree, "/m/x") is True
    assert find(tree, "/a") == (0, "/a")


def test_mount_that_is_gone() -> None:
    """A mount whose component is not there answers nothing."""
    assert find([site(0, "GET /a", mounts={"/m/": 9})], "/m/x") is True
