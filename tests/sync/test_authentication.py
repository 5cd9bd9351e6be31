"""Identities on the socket (checklist 42 to 47; sections 2.5 and 6)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest, Forbidden, NotFound, Overloaded, RateLimited, ServerFault, Unauthenticated
from convex_backend.sync.worker import FIRST_QUERY_SET_SECONDS, INBOX_MESSAGES
from tests.sync.support import (
    ADMIN_KEY,
    T0,
    Server,
    action,
    add,
    authenticate,
    connect,
    modify,
    mutation,
    result,
    success,
)

INTERNAL = {"close": 1011, "reason": "InternalServerError"}
EMPTY_CLOSE = {"close": None, "reason": ""}
USER = Identity("user", (("tokenIdentifier", "i|s"),))


@pytest.mark.parametrize("kind", ["None", "Admin", "User"])
def test_an_identity_is_announced(kind: str) -> None:
    """42: a Transition with the next identity version follows, even without any query."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(authenticate(0, kind, {"None": None, "Admin": ADMIN_KEY, "User": "a.b.c"}[kind]))
    for _, waiter in server.application.tokens:
        waiter.callback(USER)
    server.clock.advance(FIRST_QUERY_SET_SECONDS)
    (transition,) = socket.read()
    assert transition["endVersion"]["identity"] == 1
    assert socket.live is not None
    assert socket.live.identity.kind == {"None": "anonymous", "Admin": "admin", "User": "user"}[kind]


def test_a_reconnect_gets_identity_and_queries_together() -> None:
    """6.4: Authenticate and the first ModifyQuerySet make one Transition, so that no result seems to be lost."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(connect(), authenticate(0))
    server.application.tokens[0][1].callback(USER)
    socket.send(modify(0, add(0)))
    (transition,) = socket.read()
    assert transition["endVersion"] == {**transition["endVersion"], "querySet": 1, "identity": 1}
    assert len(transition["modifications"]) == 1
    server.clock.advance(1)
    assert socket.read() == []


def test_later_identities_are_announced_at_once() -> None:
    """42: once the client has a query set nothing is held back."""
    socket = Server(automatic=True).open()
    socket.send(modify(0), authenticate(0, "None", None), authenticate(1, "Admin", ADMIN_KEY))
    assert [message["endVersion"]["identity"] for message in socket.read()] == [0, 1, 2]


def test_a_held_identity_ends_with_its_socket() -> None:
    """A socket that goes while its identity is held back leaves no timer."""
    from twisted.internet.error import ConnectionLost
    from twisted.python.failure import Failure

    server = Server(automatic=True)
    socket = server.open()
    socket.send(authenticate(0, "None", None))
    socket.transport.lose(Failure(ConnectionLost()))
    assert not server.clock.getDelayedCalls()


def test_messages_wait_for_the_token() -> None:
    """13, 6.1: what comes after an Authenticate runs under its identity, in order; a mutation keeps the one it was sent under."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(
        mutation(0, "m:a"), mutation(1, "m:b"), authenticate(0), mutation(2, "m:c"), action(3), modify(0, add(0))
    )
    assert server.application.actions == []
    server.application.tokens[0][1].callback(USER)
    assert server.application.actions[0].identity is USER
    for number in range(3):
        server.application.mutations[number].answer.callback(success())
    assert [call.identity.kind for call in server.application.mutations] == ["anonymous", "anonymous", "user"]


def test_the_socket_is_not_read_while_too_much_waits() -> None:
    """E4: a client that goes on sending while its token is verified is held up by TCP."""
    server = Server()
    socket = server.open()
    socket.send(authenticate(0))
    socket.send(*({"type": "Event"} for _ in range(INBOX_MESSAGES - 1)))
    assert socket.transport.reading
    socket.send({"type": "Event"})
    assert not socket.transport.reading
    server.pass_seconds(130)
    assert not any("close" in message for message in socket.read()), "silence of our own making is not the peer's"
    server.application.tokens[0][1].callback(USER)
    assert socket.transport.reading


def test_every_query_is_evaluated_again() -> None:
    """45: the identity reaches the live queries before the Transition that announces it."""
    server = Server()
    socket = server.open()
    socket.send(modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, result(b"1")))
    socket.send(authenticate(0, "Admin", ADMIN_KEY))
    assert socket.live.identity.kind == "admin"
    assert len(socket.read()) == 1
    socket.live.push(T0, (0, result(b"2")))
    assert socket.read()[0]["endVersion"]["identity"] == 1


@pytest.mark.parametrize("name", ["impersonating", "acting_as"])
def test_an_admin_acts_as_a_user(name: str) -> None:
    """46: under either name; the token identifier is made from issuer and subject."""
    socket = Server().open()
    socket.send(authenticate(0, "Admin", ADMIN_KEY, **{name: {"issuer": "i", "subject": "s", "role": "r"}}))
    assert socket.live is not None
    identity = socket.live.identity
    assert identity.kind == "acting_user"
    assert dict(identity.attributes or ())["tokenIdentifier"] == "i|s"
    assert dict(identity.attributes or ())["role"] == "r"


def test_an_admin_acts_as_nobody() -> None:
    """46: attributes that do not say who end the connection with FatalError."""
    socket = Server().open()
    socket.send(authenticate(0, "Admin", ADMIN_KEY, impersonating={"name": "x"}))
    fatal, end = socket.read()
    assert fatal["type"] == "FatalError"
    assert end == EMPTY_CLOSE


def test_a_wrong_base_version() -> None:
    """6.1: an Authenticate on another identity version closes 1011."""
    socket = Server().open()
    socket.send(authenticate(1, "None", None))
    assert socket.read() == [INTERNAL]


@pytest.mark.parametrize(("kind", "text"), [("User", "bad token"), ("Admin", "The provided admin key was invalid")])
def test_a_rejected_token(kind: str, text: str) -> None:
    """43: AuthError with the identity of the last Transition sent, then an empty close; what follows is not run."""
    server = Server()
    socket = server.open()
    socket.send(modify(0), authenticate(0, "None", None))
    assert socket.live is not None
    socket.live.push(T0)
    socket.send(authenticate(1, "None", None), authenticate(2, kind, "wrong"), mutation(0))
    for _, waiter in server.application.tokens:
        waiter.errback(Unauthenticated("InvalidAuthHeader", text))
    _, error, end = socket.read()
    assert error == {"type": "AuthError", "error": error["error"], "baseVersion": 1, "authUpdateAttempted": True}
    assert error["error"].startswith(text)
    assert end == EMPTY_CLOSE
    assert server.application.mutations == []


@pytest.mark.parametrize(
    "error",
    [
        ServerFault("down"),
        Overloaded("ProviderDown", "down"),
        BadRequest("AuthProviderDiscoveryFailed", "400"),
        Forbidden("AuthProviderDiscoveryFailed", "403"),
        NotFound("AuthProviderDiscoveryFailed", "404"),
        RateLimited("AuthProviderDiscoveryFailed", "429"),
        ZeroDivisionError(),
    ],
)
def test_the_provider_is_down(error: Exception) -> None:
    """47: trouble in verification that is not the token's fault closes 1011."""
    server = Server()
    socket = server.open()
    socket.send(authenticate(0))
    server.application.tokens[0][1].errback(error)
    assert socket.read() == [INTERNAL]


@pytest.mark.parametrize("use", ["mutation", "queued mutation", "action", "update"])
def test_an_expired_token(use: str) -> None:
    """44: AuthError without an attempted update, and nothing is run under the token; an idle socket stays open."""
    server = Server()
    socket = server.open()
    socket.send(modify(0), authenticate(0))
    server.application.tokens[0][1].callback(Identity("user", (), T0 / 1e9 + 50))
    live: Any = socket.live
    live.push(T0)
    socket.read()
    runs = 0
    if use == "queued mutation":
        socket.send(mutation(0), mutation(1))
        runs = 1
    server.pass_seconds(50)
    assert not any("close" in message for message in socket.read())
    match use:
        case "mutation":
            socket.send(mutation(0))
        case "queued mutation":
            server.application.mutations[0].answer.callback(success())
        case "action":
            socket.send(action(0))
        case "update":
            live.push(T0 + 1, (0, result()))
    expected: dict[str, Any] = {
        "type": "AuthError",
        "error": "Convex token identity expired",
        "baseVersion": 1,
        "authUpdateAttempted": False,
    }
    messages = [message for message in socket.read() if message.get("type") != "MutationResponse"]
    assert messages == [expected, EMPTY_CLOSE]
    assert len(server.application.mutations) == runs
    assert server.application.actions == []
    assert live.closed


def test_the_socket_goes_while_a_token_is_verified() -> None:
    """A verdict for a socket that is gone changes nothing."""
    from twisted.internet.error import ConnectionLost
    from twisted.python.failure import Failure

    server = Server()
    for outcome in (USER, Unauthenticated("X", "no")):
        socket = server.open()
        socket.send(authenticate(0))
        socket.transport.lose(Failure(ConnectionLost()))
        _, waiter = server.application.tokens.pop()
        if isinstance(outcome, Identity):
            waiter.callback(outcome)
        else:
            waiter.errback(outcome)
        assert socket.live is not None
        assert socket.live.identity.kind == "anonymous"
    assert not server.clock.getDelayedCalls()
