"""``signJwt``, and the services that only Convex's own cloud has (``functions/syscalls/auth.py``)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from convex_backend.errors import BadRequest
from tests.functions.test_syscalls import Rig, function


class Signer:
    """Notes what it is asked for; refuses a life time of zero."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def sign(self, component_path: str, claims: object, expires_in_seconds: object) -> str:
        self.asked.append((component_path, claims, expires_in_seconds))
        if expires_in_seconds == 0:
            raise BadRequest("InvalidJwtExpiration", "too short")
        return "a.b.c"


def rig_with(signer: Signer | None, kind: str = "mutation", **more: Any) -> Rig:
    rig = Rig(kind, **more)
    rig.tree.services = attrs.evolve(rig.tree.services, signer=signer)
    return rig


@pytest.mark.parametrize("component_path", ["", "outer/inner"])
def test_a_token_is_issued_by_the_functions_component(component_path: str) -> None:
    """The options come as npm spreads them; the issuer is the component of the function that asks."""
    signer = Signer()
    rig = rig_with(signer, function=attrs.evolve(function(), component_path=component_path))
    args = {"requestId": "", "version": "1.48.0", "claims": {"sub": "u"}, "expiresInSeconds": 60}
    assert rig.call("1.0/signJwt", args) == "a.b.c"
    assert signer.asked == [(component_path, {"sub": "u"}, 60)]
    assert rig.call("1.0/signJwt", {"requestId": "", "expiresInSeconds": 60}) == "a.b.c"
    assert signer.asked[1] == (component_path, None, 60)


def test_what_is_refused_is_the_functions_error() -> None:
    """A refused life time can be caught in the mutation; without a key there is a text, not a fault."""
    assert rig_with(Signer()).error("1.0/signJwt", {"expiresInSeconds": 0}) == "too short"
    assert "no key" in rig_with(None).error("1.0/signJwt", {"expiresInSeconds": 60})


@pytest.mark.parametrize("kind", ["query", "action", "httpAction"])
def test_only_mutations_sign(kind: str) -> None:
    """npm: `signJwt` is of `MutationAuth`."""
    assert rig_with(Signer(), kind).error("1.0/signJwt", {}) == "Unknown async operation 1.0/signJwt"


@pytest.mark.parametrize("op", ["1.0/createServiceToken", "1.0/getServiceUrl"])
def test_managed_services(op: str) -> None:
    """Services of Convex's cloud are refused by name; only actions may ask."""
    assert rig_with(None, "action").error(op, {"service": "ai-gateway"}) == (
        "The Convex-managed service 'ai-gateway' is not available: this deployment is self-hosted."
    )
    assert rig_with(None).error(op, {"service": "ai-gateway"}) == f"Unknown async operation {op}"
