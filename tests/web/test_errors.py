"""The one table from error class to status, and the body of every error (``http_api.md`` section 2.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from convex_backend import errors
from convex_backend.errors import ConvexError
from convex_backend.web.errors import STATUS, error_body, status_of

EXPECTED = {
    "BadRequest": 400,
    "PaginationLimit": 400,
    "TooLarge": 413,
    "Unauthenticated": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "Conflict": 409,
    "Transient": 503,
    "OccConflict": 503,
    "Overloaded": 503,
    "OutOfRetention": 503,
    "RateLimited": 429,
    "ServerFault": 500,
    "StorageFailed": 500,
}


def classes(kind: type[ConvexError] = ConvexError) -> Iterator[type[ConvexError]]:
    """All classes of the error tree that are defined in ``errors.py``."""
    for one in kind.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
        yield from classes(one)


def made(kind: type[ConvexError]) -> ConvexError:
    error = kind.__new__(kind)
    ConvexError.__init__(error, "SomeCode", "some text")
    return error


@pytest.mark.parametrize("kind", sorted(set(classes()), key=lambda kind: kind.__name__))
def test_every_class_has_its_status(kind: type[ConvexError]) -> None:
    """No class of the tree is without a row; one that never leaves the inside (``Rerun``, …) is as its parent."""
    assert any(issubclass(kind, listed) for listed, _ in STATUS)
    named = next(one for one in kind.__mro__ if one.__name__ in EXPECTED)
    assert status_of(made(kind)) == EXPECTED[named.__name__]


def test_an_unknown_class_is_a_fault_of_ours() -> None:
    """Whatever else is a ``ConvexError`` is 500."""
    assert status_of(ConvexError("A", "b")) == 500


def test_a_fault_shows_nothing_of_its_cause() -> None:
    """The fixed text stands for whatever went wrong inside; every other error has its own."""
    assert json.loads(error_body(errors.StorageFailed("the disk is full"))) == {
        "code": "InternalServerError",
        "message": "Your request couldn't be completed. Try again later.",
    }
    assert json.loads(error_body(errors.NotFound("X", "é\n"))) == {"code": "X", "message": "é\n"}
