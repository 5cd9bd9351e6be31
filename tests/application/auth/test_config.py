"""The deployed auth config in memory: a push and a changed variable are seen by the next token."""

from __future__ import annotations

from convex_backend.application.auth.config import DeployedProviders
from tests.application.push_support import Deployment, module, run


def domains(app: Deployment, providers: DeployedProviders) -> list[str]:
    """What a token that comes now is checked against."""
    return [str(provider) for provider in run(providers.read())]


def config(domain: str) -> dict[str, object]:
    """A pushed ``auth.config.js``."""
    return module("auth.config.js", value={"providers": [{"domain": domain, "applicationID": "a"}]})


def test_a_push_is_seen() -> None:
    """Before the first push there is no provider; each push brings its own, and a repeated read asks nothing."""
    app = Deployment()
    providers = DeployedProviders(database=app.db, store=app.rows)
    assert domains(app, providers) == []
    app.push(config("one.test"))
    assert domains(app, providers) == ["OIDC(domain=https://one.test, app_id=a)"]
    assert run(providers.read()) is run(providers.read())
    app.push(config("two.test"))
    assert domains(app, providers) == ["OIDC(domain=https://two.test, app_id=a)"]
    app.push()
    assert domains(app, providers) == []
