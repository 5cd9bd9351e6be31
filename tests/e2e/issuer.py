"""An issuer of tokens on this machine: an OIDC provider, a custom one, and a route that hands out tokens to clients in tests.

A process of its own (``python -m tests.e2e.issuer``), because the client for Python keeps its own process from doing anything else while it waits.
Its first line of output is its URL. It ends with its standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]


class Issuer:
    """The issuer as a test sees it. :ivar url: its origin, which is the issuer of its OIDC tokens."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _get(self, path: str, **query: object) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)

    def token(self, user: str = "ada", seconds: int = 3600, kind: str = "oidc", **claims: str) -> str:
        """A token for *user* that is valid for so many seconds."""
        token: str = self._get("/token", user=user, seconds=seconds, kind=kind, **claims)
        return token

    def asked(self) -> list[str]:
        """Paths that the server under test has asked for."""
        paths: list[str] = self._get("/asked")
        return paths

    def set_down(self, down: bool) -> None:
        """Answer discovery and keys with 503, or as usual."""
        self._get("/down", down=int(down))


@contextmanager
def serving() -> Iterator[Issuer]:
    """An issuer that answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.issuer"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "the issuer did not start"
        yield Issuer(url)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def main() -> None:
    """Serve until standard input ends."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm
    from twisted.internet import reactor, stdio
    from twisted.internet.protocol import Protocol
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    rsa_key = rsa.generate_private_key(65537, 2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    asked: list[str] = []
    state = {"down": False}

    def token(user: str, seconds: str, kind: str, **claims: str) -> str:
        now = time.time()
        custom = kind == "custom"
        tree = {
            "iss": f"{origin}/custom" if custom else origin,
            "sub": user,
            "aud": "app",
            "iat": int(now),
            "exp": int(now) + int(seconds),
            # Two tokens of one second differ.
            "jti": str(now),
            **claims,
        }
        return jwt.encode(tree, ec_key if custom else rsa_key, "ES256" if custom else "RS256", headers={"kid": "k1"})

    class Root(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            request.setHeader(b"content-type", b"application/json")
            query = {name.decode(): values[0].decode() for name, values in request.args.items()}
            status, tree = answer(request.path.decode(), query)
            request.setResponseCode(status)
            return json.dumps(tree).encode()

    def answer(path: str, query: dict[str, str]) -> tuple[int, object]:
        if path == "/token":
            return 200, token(**{"user": "ada", "seconds": "3600", "kind": "oidc", **query})
        if path == "/asked":
            return 200, asked
        if path == "/down":
            state["down"] = query["down"] == "1"
            return 200, None
        asked.append(path)
        if state["down"]:
            return 503, None
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": origin, "jwks_uri": f"{origin}/keys"}
        keys = {
            "/keys": lambda: RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True),
            "/custom/keys": lambda: ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True),
        }
        if path not in keys:
            return 404, None
        return 200, {"keys": [{**keys[path](), "kid": "k1", "use": "sig"}]}

    class Parent(Protocol):
        def connectionLost(self, reason: Any = None) -> None:
            if reactor.running:  # type: ignore[attr-defined]
                reactor.stop()  # type: ignore[attr-defined]

    port = reactor.listenTCP(0, Site(Root()), interface="127.0.0.1")  # type: ignore[attr-defined]
    origin = f"http://127.0.0.1:{port.getHost().port}"
    print(origin, flush=True)
    stdio.StandardIO(Parent())
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
