"""Keys, origins and environment variables (``http_api.md`` sections 6.2, 7 and 12)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application.operations import OPERATIONS, READ_ONLY_OPERATIONS
from convex_backend.errors import BadRequest
from tests.web.support import Bench

UPDATES = ["/api/update_environment_variables", "/api/v1/update_environment_variables"]


def test_check_admin_key() -> None:
    """A key is told all that it allows, and whether it may write."""
    bench = Bench()
    answer = bench.admin("GET", "/api/check_admin_key").json
    assert answer == {"success": True, "allowedOps": sorted(OPERATIONS), "isReadOnly": False}
    read_only = bench.ask("GET", "/api/check_admin_key", None, {"Authorization": f"Convex {bench.read_only_key}"}).json
    assert read_only == {"success": True, "allowedOps": sorted(READ_ONLY_OPERATIONS), "isReadOnly": True}


def test_canonical_urls() -> None:
    """The public origins are those of the settings."""
    answer = Bench().admin("GET", "/api/v1/get_canonical_urls")
    assert answer.json == {"convexCloudUrl": "http://cloud.test", "convexSiteUrl": "http://site.test"}


def test_deployment_info() -> None:
    """The deployment says that it is self-hosted."""
    assert Bench().admin("GET", "/api/v1/deployment_info").json == {"kind": "selfHosted"}


@pytest.mark.parametrize("path", ["/api/list_environment_variables", "/api/v1/list_environment_variables"])
def test_list(path: str) -> None:
    """Variables come as one object."""
    assert Bench().admin("GET", path).json == {"environmentVariables": {"FOO": "bar"}}


@pytest.mark.parametrize("path", UPDATES)
def test_update(path: str) -> None:
    """All changes of a request go to the use case at once; the answer is empty."""
    bench = Bench()
    changes = [{"name": "A", "value": "1\n=2"}, {"name": "B", "value": None}, {"name": "C"}]
    answer = bench.admin("POST", path, {"changes": changes})
    assert (answer.status, answer.body) == (200, b"")
    assert bench.application.environment.updates == [[("A", "1\n=2"), ("B", None), ("C", None)]]


@pytest.mark.parametrize("path", UPDATES)
@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"changes": {}},
        {"changes": ["A"]},
        {"changes": [{"name": 1}]},
        {"changes": [{"name": "A", "value": 1}]},
        {"changes": [{"name": "A", "value": "x"}, {"value": "x"}]},
    ],
)
def test_bad_update(path: str, body: Any) -> None:
    """A body of another shape changes nothing."""
    bench = Bench()
    assert bench.admin("POST", path, body).error == (400, "BadJsonBody")
    assert bench.application.environment.updates == []


def test_refused_update() -> None:
    """What the rules of variables refuse is 400 with their code."""
    bench = Bench()
    bench.application.environment.error = BadRequest("EnvVarNameForbidden", "built-in")
    assert bench.admin("POST", UPDATES[0], {"changes": []}).error == (400, "EnvVarNameForbidden")
