"""What can be wrong with a document operation of a function, and in which words.

Source: ``runtime.md`` sections 2.2, 2.3 and 4.6.
"""

from __future__ import annotations

from typing import Any, NoReturn

from convex_backend.errors import BadRequest
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.text import string_text, value_text


def bad_id(call: str, reason: str) -> BadRequest:
    """:returns: the error of an ``id`` argument of *call* (``db.get``, …)."""
    return BadRequest("InvalidArgument", f"Invalid argument `id` for `{call}`: {reason}")


def wrong_table(call: str, expected: str, found: str) -> BadRequest:
    """:returns: the error of an id of table *found* where one of *expected* was meant."""
    return bad_id(call, f'expected to be an Id<"{expected}">, got Id<"{found}"> instead.')


def no_document(verb: str, id: str) -> NoReturn:
    """:raises BadRequest: a write to a document that does not exist; *verb* is ``Update``, ``Replace`` or ``Delete``."""
    raise BadRequest("NonexistentDocument", f"{verb} on nonexistent document ID {id}")


def check_system_fields(value: dict[str, Any], id: str, creation_time: float) -> None:
    """:raises InvalidValue: ``InvalidDocumentError``, when given system fields are not those of the document."""
    faults = []
    given = value.get("_id", id)
    if given != id:
        shown = given if type(given) is str else value_text(given)
        faults.append(f"Provided document ID {string_text(id)} doesn't match '_id' field {string_text(shown)}")
    time = value.get("_creationTime", creation_time)
    if type(time) is not float or time != creation_time:
        faults.append(
            f"Provided creation time {value_text(creation_time)} doesn't match '_creationTime' field in {value_text(value)}"
        )
    if faults:
        raise InvalidValue(f"{value_text(value)} isn't a valid document: " + "\n ".join(faults), "InvalidDocumentError")
