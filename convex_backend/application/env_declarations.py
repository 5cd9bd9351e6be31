"""Environment variables as apps and components declare them: names, validators, whether they may be missing.

Their values are strings, so a validator is a string, string literals, or a union of those. Source: ``push.md`` section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from convex_backend.errors import BadRequest
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.validators import (
    InvalidValidator,
    LiteralValidator,
    UnionValidator,
    Validator,
    parse_text,
)

#: How the text of every failed push begins (``push.md`` section 2).
PUSH_PREFIX: Final = "Hit an error while pushing:\n"


def declarations(definition: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and declarations of the environment variables that a definition declares.

    :raises BadRequest: ``InvalidDefinition``.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for entry in definition.get("envVars") or ():
        if (
            not isinstance(entry, Sequence)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or not isinstance(entry[1], Mapping)
        ):
            raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}A declaration of environment variables is malformed.")
        found.append((entry[0], dict(entry[1])))
    return found


def strings_of(validator: Validator) -> frozenset[str] | None:
    """The strings that a string-like validator admits; ``None`` for all of them."""
    if isinstance(validator, LiteralValidator):
        return frozenset((str(validator.literal),))
    if isinstance(validator, UnionValidator):
        found: frozenset[str] = frozenset()
        for member in validator.members:
            strings = strings_of(member)
            if strings is None:
                return None
            found |= strings
        return found
    return None


def _string_like(validator: Validator) -> bool:
    if isinstance(validator, UnionValidator):
        return all(map(_string_like, validator.members))
    if isinstance(validator, LiteralValidator):
        return isinstance(validator.literal, str)
    return validator.to_json() == {"type": "string"}


def parse_declaration(name: str, declared: Any) -> Validator:
    """The validator of a declared variable.

    :raises BadRequest: ``InvalidEnvVarDeclaration``: values are strings, and only strings.
    """
    try:
        validator = parse_text(declared["value"])
    except (InvalidValidator, InvalidValue, KeyError, TypeError) as error:
        raise BadRequest(
            "InvalidEnvVarDeclaration", f"{PUSH_PREFIX}The declaration of {name} is malformed: {error}"
        ) from None
    if not _string_like(validator):
        raise BadRequest(
            "InvalidEnvVarDeclaration",
            f"{PUSH_PREFIX}The environment variable {name} must be declared as a string, string literals, or a union of them.",
        )
    return validator
