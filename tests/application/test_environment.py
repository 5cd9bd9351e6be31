"""Environment variables (``http_api.md`` section 6.2)."""

from __future__ import annotations

import pytest

from convex_backend.errors import BadRequest
from tests.application.push_support import Deployment, run


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def test_set_change_and_delete(app: Deployment) -> None:
    """Variables are listed by name; a null value deletes; deleting an unset one is no fault."""
    run(app.environment.update([("B", "2"), ("A", "line 1\nline 2")]))
    assert list(app.environment.list().items()) == [("A", "line 1\nline 2"), ("B", "2")]
    run(app.environment.update([("A", None), ("B", "3"), ("C", None)]))
    assert app.environment.list() == {"B": "3"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("1A", "x")], "EnvironmentVariableNameInvalid"),
        ([("", "x")], "EnvironmentVariableNameInvalid"),
        ([("A" * 257, "x")], "EnvironmentVariableNameTooLong"),
        ([("A", "x" * 8193)], "EnvironmentVariableValueTooLarge"),
        ([("A", "x"), ("A", "y")], "EnvVarNameNotUnique"),
        ([("CONVEX_SITE_URL", "x")], "EnvVarNameForbidden"),
        ([(f"V{n}", "x") for n in range(513)], "EnvVarLimitMet"),
        ([(f"V{n}", "x" * 8000) for n in range(70)], "EnvVarTotalSizeLimitMet"),
    ],
)
def test_rules(app: Deployment, changes: list[tuple[str, str | None]], code: str) -> None:
    """A change that breaks a rule is refused with its code, and nothing of its request applies."""
    with pytest.raises(BadRequest) as caught:
        run(app.environment.update([("GOOD", "x"), *changes]))
    assert caught.value.code == code
    assert app.environment.list() == {}


def test_limits_are_inclusive(app: Deployment) -> None:
    """The longest name and the largest value are accepted."""
    run(app.environment.update([("_" + "a" * 255, "x" * 8192)]))
    assert len(app.environment.list()) == 1
