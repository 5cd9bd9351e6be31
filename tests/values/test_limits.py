"""Sizes, nesting, names, documents, and their texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from convex_backend.values.kinds import UNDEFINED, InvalidValue
from convex_backend.values.limits import (
    MAX_DOCUMENT_BYTES,
    arguments_size_error,
    check_document,
    check_size,
    check_value,
    document_violations,
    field_name_error,
    format_bytes,
    identifier_error,
    is_identifier,
    nesting,
    result_size_error,
    size_of,
)
from tests.values.strategies import values


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, 1),
        (True, 1),
        (1, 9),
        (1.0, 9),
        ("", 2),
        ("é", 4),
        (b"abc", 5),
        ([], 2),
        ({}, 2),
        ([None, True], 4),
        ({"a": 1.0, "b": "é", "c": [None, True, 1], "d": b"123"}, 41),
        ({"a": "xy", "b": 1.0, "c": 1, "d": None, "e": {}}, 2 + 6 + 11 + 11 + 3 + 4),
        (UNDEFINED, 0),
    ],
)
def test_size(value: Any, size: int) -> None:
    """The size function of limits."""
    assert size_of(value) == size


def plain_size(value: Any) -> int:
    """The size table of ``runtime.md`` 4.3, word by word."""
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, (int, float)):
        return 9
    if isinstance(value, (str, bytes)):
        return 2 + len(value.encode() if isinstance(value, str) else value)
    if isinstance(value, list):
        return 2 + sum(map(plain_size, value))
    return 2 + sum(len(name) + 1 + plain_size(member) for name, member in value.items())


@settings(max_examples=150)
@given(values)
def test_size_equals_the_table(value: Any) -> None:
    """The fast size function equals the plain one, and every decoded value passes the structure check."""
    assert size_of(value) == plain_size(value)
    assert check_value(value) == plain_size(value)


@pytest.mark.parametrize(("value", "depth"), [(1.0, 0), ([], 1), ({}, 1), ([[], {"a": [1.0]}], 3), ({"a": {}}, 2)])
def test_nesting(value: Any, depth: int) -> None:
    """A scalar counts nothing, a container one more than its deepest member."""
    assert nesting(value) == depth


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (16 << 20, "16 MiB"),
        (16997417, "16.21 MiB"),
        (100 << 20, "100 MiB"),
        (3 << 40, "3 TiB"),
    ],
)
def test_format_bytes(count: int, text: str) -> None:
    """Binary units, at most two decimals, no trailing zeros."""
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a", None),
        ("_", "Identifier _ must have at least one alphanumeric character"),
        ("__a", None),
        ("a" * 64, None),
        ("a" * 65, "Identifier is too long (65 > maximum 64)"),
        ("", "Identifier cannot be empty"),
        (
            "1a",
            "Invalid first character '1' in 1a: Identifiers must start with an alphabetic character or underscore",
        ),
        (
            "éa",
            "Invalid first character 'é' in éa: Identifiers must start with an alphabetic character or underscore",
        ),
        (
            "a-b",
            "Identifier a-b has invalid character '-': "
            "Identifiers can only contain alphanumeric characters or underscores",
        ),
        (
            "a\n",
            "Identifier a\n has invalid character '\\n': "
            "Identifiers can only contain alphanumeric characters or underscores",
        ),
    ],
)
def test_identifiers(name: str, error: str | None) -> None:
    """Identifiers: letters, digits, underscores, at most 64, not only underscores."""
    assert identifier_error(name) == error
    assert is_identifier(name) == (error is None)


@pytest.mark.parametrize("name", ["", "a b", "_x", "a$", "~", "1", "a" * 1024])
def test_field_names(name: str) -> None:
    """Field names are printable ASCII and may be empty."""
    assert field_name_error(name) is None


def test_check_size_text() -> None:
    """A value over the maximum names both sizes."""
    value = "a" * (int(1.5 * MAX_DOCUMENT_BYTES) - 2)
    with pytest.raises(InvalidValue) as caught:
        check_size(value, MAX_DOCUMENT_BYTES)
    assert caught.value.message == "Value is too large (1.5 MiB > maximum size 1 MiB)"
    assert caught.value.code == "ValueTooLargeError"
    assert check_size("a" * (MAX_DOCUMENT_BYTES - 2), MAX_DOCUMENT_BYTES) == MAX_DOCUMENT_BYTES


def deep(levels: int) -> Any:
    """An array nested *levels* deep."""
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (deep(65), "Value is too nested (nested 65 levels deep > maximum nesting 64)"),
        ([0.0] * 8193, "Array length is too long (8193 > maximum length 8192)"),
        ({str(n): None for n in range(1025)}, "Object has too many fields (1025 > maximum number 1024)"),
        ([{"$a": 1.0}], "Field name $a starts with '$', which is reserved."),
        ({"a": 2**63}, "9223372036854775808 is out of range for int64"),
    ],
)
def test_check_value(value: Any, message: str) -> None:
    """Values made by our own code meet the same limits as decoded ones."""
    with pytest.raises(InvalidValue) as caught:
        check_value(value)
    assert caught.value.message == message


def test_check_document() -> None:
    """A document may be 16 levels deep and have no underscore fields but the system's."""
    assert check_document({"_id": "x", "_creationTime": 1.0, "a": deep(15)}) > 0
    bad = {"_x": 1.0, "_a": None, "d": deep(16)}
    assert document_violations(bad) == [
        "Field '_a' starts with an underscore, which is only allowed for system fields like '_id'",
        "Field '_x' starts with an underscore, which is only allowed for system fields like '_id'",
        "Document is too nested (nested 17 levels deep > maximum nesting 16)",
    ]
    with pytest.raises(InvalidValue) as caught:
        check_document({"_x": 1.0, "_a": None})
    assert caught.value.code == "InvalidDocumentError"
    assert caught.value.message == (
        "{_a: null, _x: 1.0} isn't a valid document: "
        "Field '_a' starts with an underscore, which is only allowed for system fields like '_id'\n "
        "Field '_x' starts with an underscore, which is only allowed for system fields like '_id'"
    )
    with pytest.raises(InvalidValue, match="maximum size 1 MiB"):
        check_document({"a": "x" * MAX_DOCUMENT_BYTES})


def test_call_size_texts() -> None:
    """Arguments and results over 16 MiB are named with both sizes."""
    assert arguments_size_error("foo.js:f", 16 << 20) is None
    assert result_size_error("foo.js:f", 16 << 20) is None
    assert arguments_size_error("foo.js:f", 16997417) == (
        "Arguments for foo.js:f are too large (actual: 16.21 MiB, limit: 16 MiB)"
    )
    assert result_size_error("foo.js:f", 17 << 20) == (
        "Function foo.js:f return value is too large (actual: 17 MiB, limit: 16 MiB)"
    )
