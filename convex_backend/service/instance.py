"""The deployment's name and secret: two small files, made at the first start and readable by their owner only.

``<local storage>/credentials/instance_name`` and ``instance_secret`` (64 hex digits). Source: ``admin_keys.md`` section 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from convex_backend.application.keys import SECRET_BYTES, check_instance_name, parse_secret

_NAME_FILE = "instance_name"
_SECRET_FILE = "instance_secret"


class BadCredentials(Exception):
    """The stored credentials cannot be used; the text is one line for the operator."""


@attrs.frozen(slots=True)
class Credentials:
    """Name and secret (32 bytes) of a deployment."""

    name: str
    secret: bytes = attrs.field(repr=False)


@attrs.frozen(slots=True)
class Instance:
    """The credentials in use.

    :param first_start: there were none before.
    :param secret_changed: the given secret differs from the stored one: keys issued before are no longer valid.
    """

    credentials: Credentials
    first_start: bool
    secret_changed: bool


def credentials_directory(local_storage: Path) -> Path:
    """Where the two files are."""
    return local_storage / "credentials"


def read_credentials(local_storage: Path) -> Credentials | None:
    """The stored credentials, ``None`` when there is no secret yet: the server was never started with this directory.

    :raises BadCredentials: when a file is unreadable or damaged, or the name is missing beside a secret.
    """
    directory = credentials_directory(local_storage)
    name_file, secret_file = directory / _NAME_FILE, directory / _SECRET_FILE
    try:
        if not secret_file.exists():
            return None
        # No text of a damaged secret reaches the message.
        secret = parse_secret(secret_file.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise BadCredentials(_reason(secret_file, error)) from error
    try:
        name = check_instance_name(name_file.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise BadCredentials(_reason(name_file, error)) from error
    return Credentials(name, secret)


def _reason(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot read {path}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path} is damaged: it is not ASCII text"
    return f"{path} is damaged: it {error}"


def prepare_instance(
    local_storage: Path,
    name: str | None,
    secret: bytes | None,
    default_name: str,
    random_bytes: Callable[[int], bytes],
) -> Instance:
    """Read the credentials, make what is missing, and keep what was given. Doing it again changes nothing.

    Makes *local_storage* and the credentials directory, both mode 0700 when new. Reads and writes a few bytes; called once, before listening.

    :param name: as given by the operator; wins over the stored name.
    :param secret: as given by the operator, 32 bytes; wins over the stored one.
    :raises BadCredentials: when the directory or the files cannot be used.
    """
    directory = credentials_directory(local_storage)
    try:
        local_storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadCredentials(f"cannot create {directory}: {error.strerror}") from error
    stored = read_credentials(local_storage)
    used = Credentials(
        name or (stored.name if stored else default_name),
        secret or (stored.secret if stored else random_bytes(SECRET_BYTES)),
    )
    try:
        # The secret last: a start that is cut between the two is then still a first start.
        if stored is None or stored.name != used.name:
            _write_private(directory / _NAME_FILE, used.name)
        if stored is None or stored.secret != used.secret:
            _write_private(directory / _SECRET_FILE, used.secret.hex())
        for path in (directory / _NAME_FILE, directory / _SECRET_FILE):
            path.chmod(0o600)
    except OSError as error:
        raise BadCredentials(f"cannot write to {directory}: {error.strerror}") from error
    return Instance(used, stored is None, stored is not None and stored.secret != used.secret)


def _write_private(path: Path, text: str) -> None:
    """Write *text* and a line end: whole or not at all, on disk, mode 0600 from the first byte."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
