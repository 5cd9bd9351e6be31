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


def test_the_limit_of_the_number_is_inclusive(app: Deployment) -> None:
    """512 variables fit, one more does not; deleting makes room in the same request."""
    run(app.environment.update([(f"V{n}", "") for n in range(512)]))
    with pytest.raises(BadRequest) as caught:
        run(app.environment.update([("MORE", "")]))
    assert caught.value.code == "EnvVarLimitMet"
    run(app.environment.update([("MORE", ""), ("V0", None)]))
    assert len(app.environment.list()) == 512


def test_the_limit_of_the_total_is_inclusive(app: Deployment) -> None:
    """512 KiB of names and values fit, a byte more does not, counted in UTF-8."""
    names = [f"V{n:02}" for n in range(63)]
    left = 512 * 1024 - sum(len(name) + 8192 for name in names)
    run(app.environment.update([*((name, "x" * 8192) for name in names), ("LAST", "x" * (left - 4))]))
    with pytest.raises(BadRequest) as caught:
        run(app.environment.update([("LAST", "x" * (left - 6) + "é" + "x")]))
    assert caught.value.code == "EnvVarTotalSizeLimitMet"


def test_a_value_is_measured_in_bytes(app: Deployment) -> None:
    """4097 letters of two bytes are too many."""
    with pytest.raises(BadRequest) as caught:
        run(app.environment.update([("A", "é" * 4097)]))
    assert caught.value.code == "EnvironmentVariableValueTooLarge"


def test_built_in_variables_are_protected(app: Deployment) -> None:
    """http_api.md 6.2: the text names the variable; deleting one is refused too."""
    for value in ("x", None):
        with pytest.raises(BadRequest) as caught:
            run(app.environment.update([("CONVEX_CLOUD_URL", value)]))
        assert caught.value.message == (
            'Environment variable with name "CONVEX_CLOUD_URL" is built-in and cannot be overridden'
        )
