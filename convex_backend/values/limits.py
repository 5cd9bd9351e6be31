"""Limits of values, documents and names, with their texts.

Source: ``runtime.md`` sections 1.2, 4.3 and 4.6.
"""

from __future__ import annotations

import re
from typing import Any, Final

from convex_backend.values.kinds import INT64_MAX, INT64_MIN, InvalidValue, Undefined, Value
from convex_backend.values.text import char_text, value_text

MAX_VALUE_BYTES: Final = 32 << 20
MAX_DOCUMENT_BYTES: Final = 1 << 20
MAX_ARGUMENTS_BYTES: Final = 16 << 20
MAX_RESULT_BYTES: Final = 16 << 20
MAX_VALUE_NESTING: Final = 64
MAX_DOCUMENT_NESTING: Final = 16
MAX_ARRAY_LENGTH: Final = 8192
MAX_OBJECT_FIELDS: Final = 1024
MAX_FIELD_NAME_LENGTH: Final = 1024
MAX_IDENTIFIER_LENGTH: Final = 64

SYSTEM_FIELDS: Final = frozenset(("_id", "_creationTime"))

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FIELD_NAME: Final = re.compile(r"(?!\$)[ -~]{0,1024}")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def format_bytes(count: int) -> str:
    """:returns: *count* bytes in binary units with at most two decimals: ``1 MiB``, ``16.21 MiB``, ``512 B``."""
    size: float = count
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    digits = f"{size:.2f}".rstrip("0").rstrip(".")
    return f"{digits} {_UNITS[unit]}"


def size_of(value: Any) -> int:
    """:param value: a value or :data:`UNDEFINED`.
    :returns: the size in bytes that all limits count: null and booleans 1, numbers 9, strings and bytes 2 + length in
    UTF-8, containers 2 + their members, object members key length + 1 + value."""
    kind = type(value)
    if kind is str:
        return 2 + (len(value) if value.isascii() else len(value.encode()))
    if kind is float or kind is int:
        return 9
    if kind is dict:
        total = 2
        for key, member in value.items():
            kind = type(member)
            if kind is str and member.isascii():
                total += len(key) + 3 + len(member)
            elif kind is float:
                total += len(key) + 10
            else:
                total += len(key) + 1 + size_of(member)
        return total
    if kind is list:
        return 2 + sum(map(size_of, value))
    if kind is bytes:
        return 2 + len(value)
    if value is None or kind is bool:
        return 1
    return 9 if kind is not Undefined else 0


def nesting(value: Value | Undefined) -> int:
    """:returns: how many containers deep *value* is: scalar 0, container 1 + the deepest member."""
    if type(value) is dict:
        return 1 + max(map(nesting, value.values()), default=0)
    if type(value) is list:
        return 1 + max(map(nesting, value), default=0)
    return 0


def field_name_error(name: str) -> str | None:
    """:returns: why *name* may not be a field of an object, or ``None``."""
    if _FIELD_NAME.fullmatch(name):
        return None
    if name.startswith("$"):
        return f"Field name {name} starts with '$', which is reserved."
    for char in name:
        if not " " <= char <= "~":
            return (
                f"Field name {name} has invalid character {char_text(char)}: "
                "Field names can only contain non-control ASCII characters"
            )
    return f"Field name is too long ({len(name)} > maximum {MAX_FIELD_NAME_LENGTH})"


def identifier_error(name: str) -> str | None:
    """:returns: why *name* is not an identifier (``[A-Za-z_][A-Za-z0-9_]*``, at most 64, not only underscores), or ``None``."""
    if _IDENTIFIER.fullmatch(name) and name.strip("_"):
        return None
    if not name:
        return "Identifier cannot be empty"
    first = name[0]
    if not (first.isascii() and (first.isalpha() or first == "_")):
        return (
            f"Invalid first character {char_text(first)} in {name}: "
            "Identifiers must start with an alphabetic character or underscore"
        )
    for char in name:
        if not (char.isascii() and (char.isalnum() or char == "_")):
            return (
                f"Identifier {name} has invalid character {char_text(char)}: "
                "Identifiers can only contain alphanumeric characters or underscores"
            )
    if len(name) > MAX_IDENTIFIER_LENGTH:
        return f"Identifier is too long ({len(name)} > maximum {MAX_IDENTIFIER_LENGTH})"
    return f"Identifier {name} must have at least one alphanumeric character"


def is_identifier(name: str) -> bool:
    """:returns: whether *name* is an identifier."""
    return _IDENTIFIER.fullmatch(name) is not None and bool(name.strip("_"))


def check_size(value: Value, maximum: int, size: int | None = None) -> int:
    """:param size: the value's size when it is known already.
    :returns: the size in bytes.
    :raises InvalidValue: ``ValueTooLargeError`` when it is above *maximum*.
    """
    if size is None:
        size = size_of(value)
    if size > maximum:
        raise InvalidValue(
            f"Value is too large ({format_bytes(size)} > maximum size {format_bytes(maximum)})", "ValueTooLargeError"
        )
    return size


def arguments_size_error(path: str, size: int) -> str | None:
    """:param path: canonical function path.
    :param size: of the arguments, in bytes.
    :returns: the text of arguments that are too large for a call, or ``None``."""
    if size <= MAX_ARGUMENTS_BYTES:
        return None
    actual, limit = format_bytes(size), format_bytes(MAX_ARGUMENTS_BYTES)
    return f"Arguments for {path} are too large (actual: {actual}, limit: {limit})"


def result_size_error(path: str, size: int) -> str | None:
    """:returns: the text of a result that is too large, or ``None``; see :func:`arguments_size_error`."""
    if size <= MAX_RESULT_BYTES:
        return None
    actual, limit = format_bytes(size), format_bytes(MAX_RESULT_BYTES)
    return f"Function {path} return value is too large (actual: {actual}, limit: {limit})"


def too_nested() -> InvalidValue:
    """:returns: the error of a value that passes the nesting limit; built from the inside, so it always says one too many."""
    return InvalidValue(
        f"Value is too nested (nested {MAX_VALUE_NESTING + 1} levels deep > maximum nesting {MAX_VALUE_NESTING})",
        "TooNested",
    )


def array_too_long(length: int) -> InvalidValue:
    """:returns: the error of an array with *length* elements."""
    return InvalidValue(f"Array length is too long ({length} > maximum length {MAX_ARRAY_LENGTH})", "ArrayTooLong")


def too_many_fields(count: int) -> InvalidValue:
    """:returns: the error of an object with *count* fields."""
    return InvalidValue(
        f"Object has too many fields ({count} > maximum number {MAX_OBJECT_FIELDS})", "ObjectTooManyFields"
    )


def _check_structure(value: Value, depth: int) -> None:
    if isinstance(value, list):
        if depth >= MAX_VALUE_NESTING:
            raise too_nested()
        if len(value) > MAX_ARRAY_LENGTH:
            raise array_too_long(len(value))
        for element in value:
            _check_structure(element, depth + 1)
    elif isinstance(value, dict):
        if depth >= MAX_VALUE_NESTING:
            raise too_nested()
        if len(value) > MAX_OBJECT_FIELDS:
            raise too_many_fields(len(value))
        for name, member in value.items():
            error = field_name_error(name)
            if error:
                raise InvalidValue(error, "InvalidFieldName")
            _check_structure(member, depth + 1)
    elif type(value) is int and not INT64_MIN <= value <= INT64_MAX:
        raise InvalidValue(f"{value} is out of range for int64")


def check_value(value: Value) -> int:
    """Check a value that did not come through ``json_codec`` (which checks all but the size).

    :returns: its size in bytes.
    :raises InvalidValue: for nesting, lengths, field names or size.
    """
    _check_structure(value, 0)
    return check_size(value, MAX_VALUE_BYTES)


def document_violations(document: dict[str, Value]) -> list[str]:
    """:returns: each way in which *document* breaks the rules of documents (nesting 16, underscore fields), in that order."""
    found = [
        f"Field '{name}' starts with an underscore, which is only allowed for system fields like '_id'"
        for name in sorted(document)
        if name[:1] == "_" and name not in SYSTEM_FIELDS
    ]
    depth = nesting(document)
    if depth > MAX_DOCUMENT_NESTING:
        found.append(f"Document is too nested (nested {depth} levels deep > maximum nesting {MAX_DOCUMENT_NESTING})")
    return found


def check_document(document: dict[str, Value], size: int | None = None) -> int:
    """Check what is to be stored, ``_id`` and ``_creationTime`` included.

    :param size: its size when it is known already.
    :returns: its size in bytes.
    :raises InvalidValue: ``ValueTooLargeError``, or ``InvalidDocumentError`` with all violations.
    """
    size = check_size(document, MAX_DOCUMENT_BYTES, size)
    violations = document_violations(document)
    if violations:
        raise InvalidValue(
            f"{value_text(document)} isn't a valid document: " + "\n ".join(violations), "InvalidDocumentError"
        )
    return size
