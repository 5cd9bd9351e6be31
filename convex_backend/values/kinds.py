"""The value algebra: which Python object stands for which Convex value.

==================  =====================================
Convex              Python
==================  =====================================
null, boolean       ``None``, ``bool``
int64               ``int`` (never ``bool``)
float64             ``float``
string, bytes       ``str``, ``bytes``
array, object       ``list``, ``dict`` with ``str`` keys
missing             :data:`UNDEFINED`
commit timestamp    :data:`COMMIT_TS`, until it is resolved
==================  =====================================

Source: ``runtime.md`` section 4.1.
"""

from __future__ import annotations

from typing import Final, NoReturn, TypeAlias

from convex_backend.errors import BadRequest


class Undefined:
    """The type of :data:`UNDEFINED`: the value of a field that is not there. It has no truth value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> NoReturn:
        raise TypeError("UNDEFINED has no truth value: compare with `is`")

    def __reduce__(self) -> str:
        return "UNDEFINED"


class CommitTimestamp:
    """The type of :data:`COMMIT_TS`: stands for the commit's own timestamp inside a mutation's writes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "COMMIT_TS"

    def __reduce__(self) -> str:
        return "COMMIT_TS"


UNDEFINED: Final = Undefined()
COMMIT_TS: Final = CommitTimestamp()

#: A signed 64-bit integer (JS ``bigint``). Every Python ``int`` in a value is one; numbers of JSON are ``float``.
Int64: TypeAlias = int

Value: TypeAlias = "bool | Int64 | float | str | bytes | list[Value] | dict[str, Value] | CommitTimestamp | None"

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_NAMES: Final[dict[type, str]] = {
    type(None): "Null",
    int: "Int64",
    float: "Float64",
    bool: "Boolean",
    str: "String",
    bytes: "Bytes",
    list: "Array",
    dict: "Object",
    Undefined: "undefined",
    CommitTimestamp: "CommitTimestamp",
}


class InvalidValue(BadRequest):
    """Something that is not a Convex value, or breaks a limit of values.

    :param message: the text for the developer, as ``runtime.md`` sections 4.2 and 4.3 give it.
    """

    def __init__(self, message: str, code: str = "InvalidValue") -> None:
        super().__init__(code, message)


def type_name(value: Value | Undefined) -> str:
    """:returns: the name of the value's type in messages: ``Null``, ``Int64``, …, or ``undefined``."""
    return _NAMES[type(value)]
