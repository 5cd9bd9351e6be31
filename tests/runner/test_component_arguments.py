"""``1.0/componentArgument``: what older components were given when they were mounted (``runtime.md`` section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import Child
from tests.runner.samples import HEAD, REGISTER

MODULE = (
    HEAD
    + """
const argument = (name) => JSON.parse(Convex.syscall("1.0/componentArgument", JSON.stringify({ name })));
export const read = query(({ name }) => { try { return argument(name); } catch (error) { return String(error); } });
"""
)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as started:
        started.add_module("register.js", REGISTER)
        started.add_module("args.js", MODULE)
        yield started


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("size", {"value": 3}),
        ("deep", {"value": {"a": [1, None]}}),
        ("missing", {}),
        ("__proto__", {}),
        ("toString", {}),
    ],
)
def test_arguments_of_a_component(child: Child, name: str, expected: Any) -> None:
    """A component reads its arguments by name; one that was not given is absent."""
    arguments = {"size": 3, "deep": {"a": [1, None]}}
    result = child.run("query", "args.js", "read", [{"name": name}], component="local", arguments=arguments)
    assert result.value == expected


def test_the_app_has_none(child: Child) -> None:
    """In the app there are no arguments to ask for."""
    result = child.run("query", "args.js", "read", [{"name": "size"}])
    assert result.value == "Error: Component arguments are not available within the app"
