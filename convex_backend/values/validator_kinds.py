"""The kinds of validators: matching, text form, JSON, and the exact texts of what does not match.

A validator matches through a compiled closure that only says yes or no; the text is made by a second, slow walk, so that a value
that matches costs no more than looking at it. Source: ``runtime.md`` section 4.7, ``push.md`` section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final, Protocol, TypeAlias

import orjson

from convex_backend.values.ids import InvalidId, decode_id
from convex_backend.values.json_codec import to_json
from convex_backend.values.kinds import Value
from convex_backend.values.limits import SYSTEM_FIELDS
from convex_backend.values.text import float_text, string_text, value_text

_MISSING: Final = object()


class TableNames(Protocol):
    """What ``v.id`` needs to know about the tables of the component at the snapshot."""

    def table_of_number(self, number: int, /) -> tuple[str, bool] | None:
        """:returns: the name of the table with this number and whether it is a system table that user code cannot see, or
        ``None``. Virtual tables (``_storage``, ``_scheduled_functions``) come under their virtual name, as not system."""


Matcher: TypeAlias = Callable[[Any, TableNames], bool]


def _no_match(validator: Validator, value: Value, path: str) -> str:
    return f"Value does not match validator.\n{_context(path)}\nValue: {value_text(value)}\nValidator: {validator.text}"


def _context(path: str) -> str:
    return f"Path: {path}" if path else ""


class Validator:
    """Base of all validators. Immutable.

    ``matches(value, names)`` is the compiled test.
    """

    matches: Matcher

    @cached_property
    def text(self) -> str:
        """The text form in messages, for instance ``v.array(v.id("users"))``."""
        return self._text()

    def _text(self) -> str:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """:returns: the validator's JSON tree."""
        raise NotImplementedError

    def check(self, value: Value, names: TableNames, path: str = "") -> str | None:
        """:param path: where *value* is, as ``.user.tags[3]``.
        :returns: ``None`` when *value* matches, else the text of the first fault."""
        return None if self.matches(value, names) else self.explain(value, names, path)

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        """:returns: the text of the first fault of a *value* that does not match."""
        return _no_match(self, value, path)

    def children(self) -> Iterator[Validator]:
        """The validators that this one is made of."""
        return iter(())

    def referenced_tables(self) -> frozenset[str]:
        """:returns: every table named by a ``v.id`` inside."""
        return frozenset().union(*(child.referenced_tables() for child in self.children()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Validator) and orjson.dumps(self.to_json()) == orjson.dumps(other.to_json())

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text


class TypeValidator(Validator):
    """``v.null()``, ``v.boolean()``, ``v.string()``, ``v.bytes()``, ``v.float64()``, ``v.int64()``, ``v.commitTs()``: by type alone."""

    def __init__(self, json_type: str, name: str, *types: type) -> None:
        self.json_type = json_type
        self.types = types
        self._name = name
        if len(types) == 1:
            (only,) = types
            self.matches = lambda value, names: type(value) is only
        else:
            self.matches = lambda value, names: type(value) in types

    def _text(self) -> str:
        return f"v.{self._name}()"

    def to_json(self) -> dict[str, Any]:
        return {"type": self.json_type}


class AnyValidator(Validator):
    """``v.any()``."""

    def __init__(self) -> None:
        self.matches = lambda value, names: True

    def _text(self) -> str:
        return "v.any()"

    def to_json(self) -> dict[str, Any]:
        return {"type": "any"}


class IdValidator(Validator):
    """``v.id(table)``: an id of that table in this component; the document need not exist."""

    def __init__(self, table: str) -> None:
        self.table = table

        def matches(value: Any, names: TableNames) -> bool:
            if type(value) is not str:
                return False
            try:
                number, _ = decode_id(value)
            except InvalidId:
                return False
            found = names.table_of_number(number)
            return found is not None and found[0] == table

        self.matches = matches

    def _text(self) -> str:
        return f"v.id({string_text(self.table)})"

    def to_json(self) -> dict[str, Any]:
        return {"type": "id", "tableName": self.table}

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        if isinstance(value, str):
            try:
                number, _ = decode_id(value)
            except InvalidId:
                return _no_match(self, value, path)
            found = names.table_of_number(number)
            if found is not None:
                name, is_system = found
                origin = "a system table" if is_system else f"table `{name}`"
                return (
                    f'Found ID "{value}" from {origin}, which does not match the table name in validator '
                    f"`{self.text}`.{_context(path)}"
                )
        return _no_match(self, value, path)

    def referenced_tables(self) -> frozenset[str]:
        return frozenset((self.table,))


class LiteralValidator(Validator):
    """``v.literal(x)`` of a string, boolean, int64 or float64."""

    def __init__(self, literal: str | bool | int | float) -> None:
        self.literal = literal
        kind = type(literal)
        if kind is float:
            # By bits, as values are ordered: -0 is not 0, NaN is itself.
            wanted = repr(literal)
            self.matches = lambda value, names: type(value) is float and repr(value) == wanted
        else:
            self.matches = lambda value, names: type(value) is kind and value == literal

    def _text(self) -> str:
        literal = self.literal
        if type(literal) is int:
            return "v.literal(<bigint>)"
        if type(literal) is float:
            return f"v.literal({float_text(literal) if literal - literal == 0.0 else '<number>'})"
        return f"v.literal({value_text(literal)})"

    def to_json(self) -> dict[str, Any]:
        return {"type": "literal", "value": to_json(self.literal)}

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        return f"`{value_text(value)}` does not match literal validator `{self.text}`.{_context(path)}"


class ArrayValidator(Validator):
    """``v.array(x)``."""

    def __init__(self, element: Validator) -> None:
        self.element = element
        matches_element = element.matches

        def matches(value: Any, names: TableNames) -> bool:
            if type(value) is not list:
                return False
            for item in value:  # noqa: SIM110 - a generator costs a frame
                if not matches_element(item, names):
                    return False
            return True

        self.matches = matches

    def _text(self) -> str:
        return f"v.array({self.element.text})"

    def to_json(self) -> dict[str, Any]:
        return {"type": "array", "value": self.element.to_json()}

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        if isinstance(value, list):
            for position, item in enumerate(value):
                error = self.element.check(item, names, f"{path}[{position}]")
                if error:
                    return error
        return _no_match(self, value, path)

    def children(self) -> Iterator[Validator]:
        yield self.element


class RecordValidator(Validator):
    """``v.record(keys, values)``."""

    def __init__(self, keys: Validator, values: Validator) -> None:
        self.keys = keys
        self.values = values
        matches_key, matches_member = keys.matches, values.matches

        def matches(value: Any, names: TableNames) -> bool:
            if type(value) is not dict:
                return False
            for key, member in value.items():  # noqa: SIM110 - a generator costs a frame
                if not (matches_key(key, names) and matches_member(member, names)):
                    return False
            return True

        self.matches = matches

    def _text(self) -> str:
        return f"v.record({self.keys.text}, {self.values.text})"

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "record",
            "keys": self.keys.to_json(),
            "values": {"fieldType": self.values.to_json(), "optional": False},
        }

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        if isinstance(value, dict):
            for key in sorted(value):
                error = self.keys.check(key, names, f"{path}.keys()") or self.values.check(
                    value[key], names, f"{path}.values()"
                )
                if error:
                    return error
        return _no_match(self, value, path)

    def children(self) -> Iterator[Validator]:
        yield self.keys
        yield self.values


class ObjectValidator(Validator):
    """``v.object({…})``: closed; ``fields`` maps names, sorted, to (validator, optional)."""

    def __init__(self, fields: dict[str, tuple[Validator, bool]]) -> None:
        self.fields = {name: fields[name] for name in sorted(fields)}
        self.matches = self._compile(frozenset())
        #: Ignores ``_id`` and ``_creationTime`` where the validator does not declare them.
        self.matches_document = self._compile(SYSTEM_FIELDS.difference(fields))

    def _compile(self, ignored: frozenset[str]) -> Matcher:
        fields = [(name, validator.matches, optional) for name, (validator, optional) in self.fields.items()]
        missing = _MISSING

        def matches(value: Any, names: TableNames) -> bool:
            if type(value) is not dict:
                return False
            get = value.get
            seen = 0
            for name, matches_member, optional in fields:
                member = get(name, missing)
                if member is missing:
                    if not optional:
                        return False
                elif matches_member(member, names):
                    seen += 1
                else:
                    return False
            extra = len(value) - seen
            return not extra or (extra <= len(ignored) and extra == sum([name in value for name in ignored]))

        return matches

    def _text(self) -> str:
        return (
            "v.object({"
            + ", ".join(
                f"{name}: v.optional({validator.text})" if optional else f"{name}: {validator.text}"
                for name, (validator, optional) in self.fields.items()
            )
            + "})"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "object",
            "value": {
                name: {"fieldType": validator.to_json(), "optional": optional}
                for name, (validator, optional) in self.fields.items()
            },
        }

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        if not isinstance(value, dict):
            return _no_match(self, value, path)
        for name, (validator, optional) in self.fields.items():
            if name not in value:
                if optional:
                    continue
                return (
                    f"Object is missing the required field `{name}`. Consider wrapping the field validator in "
                    f"`v.optional(...)` if this is expected.{self._where(value, path)}"
                )
            error = validator.check(value[name], names, f"{path}.{name}")
            if error:
                return error
        extra = min(value.keys() - self.fields.keys())
        return f"Object contains extra field `{extra}` that is not in the validator.{self._where(value, path)}"

    def _where(self, value: dict[str, Value], path: str) -> str:
        return f"\n{_context(path)}\nObject: {value_text(value)}\nValidator: {self.text}"

    def without_ignored(self, document: dict[str, Value]) -> dict[str, Value]:
        """:returns: *document* without the system fields that this validator does not declare."""
        return {name: member for name, member in document.items() if name not in SYSTEM_FIELDS or name in self.fields}

    def children(self) -> Iterator[Validator]:
        for validator, _ in self.fields.values():
            yield validator


class UnionValidator(Validator):
    """``v.union(…)``."""

    def __init__(self, members: tuple[Validator, ...]) -> None:
        self.members = members
        tests = [member.matches for member in members]
        if len(tests) == 1:
            self.matches = tests[0]
            return

        def matches(value: Any, names: TableNames) -> bool:
            for test in tests:  # noqa: SIM110 - a generator costs a frame
                if test(value, names):
                    return True
            return False

        self.matches = matches

    def _text(self) -> str:
        return f"v.union({', '.join(member.text for member in self.members)})"

    def to_json(self) -> dict[str, Any]:
        return {"type": "union", "value": [member.to_json() for member in self.members]}

    def explain(self, value: Value, names: TableNames, path: str) -> str:
        if len(self.members) == 1:
            return self.members[0].explain(value, names, path)
        return _no_match(self, value, path)

    def children(self) -> Iterator[Validator]:
        return iter(self.members)
