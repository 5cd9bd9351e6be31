"""Paths of modules, functions and components; references and handles."""

from __future__ import annotations

import pytest

from convex_backend.errors import BadRequest
from convex_backend.values.paths import (
    FunctionPath,
    InvalidPath,
    ModulePath,
    parse_component_path,
    parse_function_handle,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "canonical", "stripped"),
    [
        ("m", "m.js:default", "m"),
        ("m:default", "m.js:default", "m"),
        ("m.js:default", "m.js:default", "m"),
        ("m.js", "m.js:default", "m"),
        ("dir/mod:f", "dir/mod.js:f", "dir/mod:f"),
        ("dir/mod.js:f", "dir/mod.js:f", "dir/mod:f"),
        ("_system/cli/tables:default", "_system/cli/tables.js:default", "_system/cli/tables"),
        ("a_1/b:_f2", "a_1/b.js:_f2", "a_1/b:_f2"),
    ],
)
def test_function_paths(text: str, canonical: str, stripped: str) -> None:
    """Every spelling of a path has one canonical and one stripped form."""
    path = FunctionPath.parse(text)
    assert (path.canonical, path.stripped, str(path)) == (canonical, stripped, canonical)
    assert FunctionPath.parse(canonical) == path == FunctionPath.parse(stripped)
    assert hash(FunctionPath.parse(stripped)) == hash(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Module paths cannot be empty."),
        (":f", "Module paths cannot be empty."),
        ("/m:f", "Module paths must be relative."),
        ("../m:f", "Module paths must be canonicalized: .. is not allowed."),
        ("a/./m:f", "Module paths must be canonicalized: . is not allowed."),
        ("m.ts:f", "Module paths can only have the extension js: m.ts"),
        ("a-b:f", "Path component a-b can only contain alphanumeric characters, underscores, or periods."),
        ("m\n:f", "Path component m\n can only contain alphanumeric characters, underscores, or periods."),
        ("a//b:f", "Path component  must have at least one alphanumeric character."),
        ("__/b:f", "Path component __ must have at least one alphanumeric character."),
        ("a" * 65 + ":f", f"Path component is too long (65 > maximum 64): {'a' * 64}..."),
        ("m:", "Identifier cannot be empty"),
        (
            "m:1f",
            "Invalid first character '1' in 1f: Identifiers must start with an alphabetic character or underscore",
        ),
        ("m:__", "Identifier __ must have at least one alphanumeric character"),
        ("a:b:f", "Path component a:b can only contain alphanumeric characters, underscores, or periods."),
    ],
)
def test_bad_function_paths(text: str, reason: str) -> None:
    """What is no path is a bad request that names the path and the fault."""
    with pytest.raises(InvalidPath) as caught:
        FunctionPath.parse(text)
    assert caught.value.code == "BadConvexFunctionIdentifier"
    assert caught.value.message == f"{text} is not a valid path to a Convex function. {reason}"


def test_long_paths() -> None:
    """A path of megabytes, valid in each part, is refused at once, not repeated in the answer, and not kept."""
    longest = "/".join(["a" * 63] * 64)
    assert FunctionPath.parse(f"{longest}:f").stripped == f"{longest}:f"
    for text in ("a/" * 2_000_000 + "a:f", "a/" * 2_000_000 + "a"):
        with pytest.raises(InvalidPath) as caught:
            FunctionPath.parse(text)
        assert caught.value.reason == f"Path is too long ({len(text.removesuffix(':f'))} > maximum 4096)."
        assert len(caught.value.message) < 200


def test_flags() -> None:
    """Built-in modules and shared chunks are told apart."""
    assert FunctionPath.parse("_system/x:f").is_system
    assert not FunctionPath.parse("system/x:f").is_system
    assert FunctionPath.parse("_deps/X:f").is_deps
    assert ModulePath.parse("actions/_deps/X.js").is_deps
    assert not ModulePath.parse("a/_deps/X.js").is_deps
    assert ModulePath.parse("_system/x").is_system


def test_module_paths() -> None:
    """Module paths are canonical with their extension; faults have the code of modules."""
    path = ModulePath.parse("dir/mod")
    assert (str(path), path.stripped) == ("dir/mod.js", "dir/mod")
    assert ModulePath.parse("a" * 64 + ".js").path == "a" * 64 + ".js"
    with pytest.raises(InvalidPath) as caught:
        ModulePath.parse("../x")
    assert caught.value.code == "BadConvexModuleIdentifier"


def test_component_paths() -> None:
    """The root is the empty path; names are identifiers."""
    assert parse_component_path(None) == parse_component_path("") == ""
    assert parse_component_path("a/b_1") == "a/b_1"
    for text in ("/a", "a/", "a//b", "a-b", ".."):
        with pytest.raises(InvalidPath) as caught:
            parse_component_path(text)
        assert caught.value.code == "InvalidComponentPath"


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("_reference/childComponent/c2/mod/f", "childComponent", ("c2", "mod", "f")),
        ("_reference/childComponent/c2", "childComponent", ("c2",)),
        ("_reference/componentArgument/x", "componentArgument", ("x",)),
        ("_reference/currentSystemUdfInComponent/abc123", "currentSystemUdfInComponent", ("abc123",)),
    ],
)
def test_references(text: str, kind: str, parts: tuple[str, ...]) -> None:
    """References into components are split and print as they came."""
    reference = parse_reference(text)
    assert (reference.kind, reference.parts, reference.function) == (kind, parts, None)
    assert str(reference) == text


def test_function_reference() -> None:
    """A function reference holds a function path in any spelling."""
    reference = parse_reference("_reference/function/dir/mod.js:f")
    assert reference.function == FunctionPath.parse("dir/mod:f")
    assert str(reference) == "_reference/function/dir/mod:f"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "_reference/",
        "_reference/other/a",
        "_reference/childComponent/",
        "_reference/childComponent/a//b",
        "_reference/currentSystemUdfInComponent/",
        "_reference/currentSystemUdfInComponent/a/b",
    ],
)
def test_bad_references(text: str) -> None:
    """Anything else is no reference."""
    with pytest.raises(BadRequest) as caught:
        parse_reference(text)
    assert caught.value.code == "InvalidReference"


def test_function_handles() -> None:
    """A handle is an id with an advisory fragment."""
    assert parse_function_handle("function://abc#dir/mod:f") == ("abc", "dir/mod:f")
    assert parse_function_handle("function://abc") == ("abc", None)
    for text in ("function://", "abc", "function://#f"):
        with pytest.raises(BadRequest, match="Function handle not found"):
            parse_function_handle(text)
