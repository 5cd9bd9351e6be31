"""The deployment's own key pair: signs the JWTs of ``ctx.auth.signJwt``, and shows its public half at ``/.well-known/jwks.json``.

The private keys are kept in one row of ``_backend_state``, sealed with the instance secret, so that a copy of the database alone signs nothing.
The first use makes the first key. A key signs for :data:`ROTATION_DAYS`; then the next one does, and the old one stays in the key set until every
token that it signed has expired. With another instance secret the old keys cannot be opened any more: a new one is made, and tokens signed before
are no longer verifiable.
Source: the types and change log of npm convex 1.48.0, ``http_api.md`` section 1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson
from twisted.logger import Logger

from convex_backend.application.sealing import BrokenSeal, Sealer
from convex_backend.application.system_commit import system_commit
from convex_backend.database.backend_state import read_state, write_state
from convex_backend.deferreds import Coalescer
from convex_backend.errors import BadRequest

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

MAX_EXPIRES_SECONDS: Final = 3600
ROTATION_DAYS: Final = 90
RESERVED_CLAIMS: Final = ("iss", "iat", "exp", "nbf")
RESERVED_PREFIXES: Final = ("convex", "cvx")

_ALGORITHM: Final = "ES256"
_ROW: Final = "signing_keys"
_PURPOSE: Final = "signing key"
_ROTATION_SECONDS: Final = ROTATION_DAYS * 86_400.0
# Beyond the longest life of a token: clocks differ, and verifiers keep key sets for a while.
_RETIRED_SECONDS: Final = MAX_EXPIRES_SECONDS + 3600.0
_KEPT: Final = 4


@attrs.frozen(slots=True, eq=False)
class SigningKey:
    """One key pair.

    :param private: PKCS#8 DER bytes.
    :param created: unix seconds; ``retired`` likewise, ``None`` while it signs.
    """

    kid: str
    private: bytes = attrs.field(repr=False)
    created: float
    retired: float | None = None

    @classmethod
    def make(cls, now: float) -> SigningKey:
        """A new key on P-256."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(_thumbprint(_public_members(key)), private, now)

    def loaded(self) -> Any:
        """The private key as PyJWT takes it."""
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        return load_der_private_key(self.private, None)

    def to_jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key."""
        return {**_public_members(self.loaded()), "kid": self.kid, "alg": _ALGORITHM, "use": "sig"}


def _public_members(key: Any) -> dict[str, str]:
    from jwt.algorithms import ECAlgorithm

    tree: Mapping[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: tree[name] for name in ("crv", "kty", "x", "y")}


def _thumbprint(members: Mapping[str, str]) -> str:
    """RFC 7638."""
    from base64 import urlsafe_b64encode

    digest = hashlib.sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


class SigningKeys:
    """Makes, keeps and uses the keys.

    :param cloud_origin: the issuer of the app's tokens.
    :param now_seconds: wall clock, unix seconds.
    """

    _log = Logger()

    def __init__(
        self, *, database: Database, sealer: Sealer, cloud_origin: str, now_seconds: Callable[[], float]
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._cloud_origin = cloud_origin
        self._now_seconds = now_seconds
        self._keys: tuple[SigningKey, ...] = ()
        self._private: tuple[SigningKey, Any] | None = None
        self._loads: Coalescer[None, tuple[SigningKey, ...]] = Coalescer()

    async def sign(self, component_path: str, claims: object, expires_in_seconds: object) -> str:
        """A signed JWT with *claims* and the times and issuer that are the deployment's to set.

        :param component_path: of the function that asks; the issuer names it.
        :raises BadRequest: the claims or the life time are not allowed.
        """
        checked = check_claims(claims)
        life = check_life_time(expires_in_seconds)
        key = (await self._current())[0]
        issued = int(self._now_seconds())
        issuer = f"{self._cloud_origin}/components/{component_path}" if component_path else self._cloud_origin
        import jwt

        if self._private is None or self._private[0] is not key:
            self._private = key, key.loaded()
        return jwt.encode(
            {**checked, "iss": issuer, "iat": issued, "exp": issued + life},
            self._private[1],
            algorithm=_ALGORITHM,
            headers={"kid": key.kid},
        )

    async def key_set(self) -> dict[str, Any]:
        """The public keys, the one that signs first, as a JSON Web Key Set."""
        keys = await self._current()
        now = self._now_seconds()
        return {"keys": [key.to_jwk() for key in keys if key.retired is None or now - key.retired < _RETIRED_SECONDS]}

    async def _current(self) -> tuple[SigningKey, ...]:
        """The keys, the one that signs first."""
        if not self._keys or self._is_due(self._keys):
            self._keys = await self._loads.run(None, self._load)
        return self._keys

    def _is_due(self, keys: tuple[SigningKey, ...]) -> bool:
        return self._now_seconds() - keys[0].created >= _ROTATION_SECONDS

    async def _load(self) -> tuple[SigningKey, ...]:
        keys, changed = await system_commit(self._database, "signing keys", self._load_in)
        if changed:
            self._log.info("a new key signs JWTs: {kid}", kid=keys[0].kid)
        return keys

    async def _load_in(self, transaction: Transaction) -> tuple[tuple[SigningKey, ...], bool]:
        now = self._now_seconds()
        row = await read_state(transaction, _ROW)
        stored = () if row is None else self._unseal(row["keys"])
        if stored and not self._is_due(stored):
            return stored, False
        old = [key if key.retired is not None else attrs.evolve(key, retired=now) for key in stored]
        kept = [key for key in old if key.retired is not None and now - key.retired < _RETIRED_SECONDS]
        keys = (SigningKey.make(now), *kept)[:_KEPT]
        await write_state(transaction, _ROW, keys=self._seal(keys))
        return keys, True

    def _seal(self, keys: tuple[SigningKey, ...]) -> str:
        trees = [
            {"kid": key.kid, "private": key.private.hex(), "created": key.created, "retired": key.retired}
            for key in keys
        ]
        return self._sealer.seal(_PURPOSE, orjson.dumps(trees))

    def _unseal(self, text: str) -> tuple[SigningKey, ...]:
        try:
            trees = orjson.loads(self._sealer.unseal(_PURPOSE, text))
        except BrokenSeal:
            self._log.warn("the signing key was sealed with another instance secret: a new one is made")
            return ()
        return tuple(
            SigningKey(tree["kid"], bytes.fromhex(tree["private"]), tree["created"], tree["retired"]) for tree in trees
        )


def check_claims(claims: object) -> dict[str, object]:
    """:raises BadRequest: *claims* is no object, or sets what is reserved."""
    if claims is None:
        return {}
    if not isinstance(claims, dict):
        raise BadRequest("InvalidJwtClaims", "Invalid argument `claims` for `signJwt`: expected an object")
    for name in claims:
        if name in RESERVED_CLAIMS:
            raise BadRequest("ReservedJwtClaim", f"The JWT claim '{name}' is reserved and may not be set.")
        if name.lower().startswith(RESERVED_PREFIXES):
            raise BadRequest(
                "ReservedJwtClaim",
                f"The JWT claim '{name}' is reserved and may not be set: names that start with 'convex' or 'cvx' are.",
            )
    for name in ("sub", "jti"):
        if name in claims and not isinstance(claims[name], str):
            raise BadRequest("InvalidJwtClaims", f"The JWT claim '{name}' must be a string.")
    return claims


def check_life_time(value: object) -> int:
    """:returns: whole seconds. :raises BadRequest: not a number from 1 to 3600."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("InvalidJwtExpiration", "Invalid argument `expiresInSeconds` for `signJwt`: expected a number")
    if not math.isfinite(value) or not 1 <= value <= MAX_EXPIRES_SECONDS:
        raise BadRequest(
            "InvalidJwtExpiration",
            f"`expiresInSeconds` must be at least 1 and at most {MAX_EXPIRES_SECONDS} seconds (1 hour).",
        )
    return int(value)
