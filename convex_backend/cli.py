"""The console script ``convex-backend``: what an operator does beside the running server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from convex_backend import __version__
from convex_backend.application.keys import Keys, check_instance_name, parse_secret
from convex_backend.errors import ConvexError
from convex_backend.service import push_commands
from convex_backend.service.configuration import (
    DEFAULT_INSTANCE_NAME,
    DEFAULT_LOCAL_STORAGE,
    DEFAULT_PERSISTENCE,
    fail,
)
from convex_backend.service.instance import BadCredentials, read_credentials
from convex_backend.service.option_values import MEMORY, parse_persistence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convex-backend",
        description="Tools for an operator of convex-backend. The server itself is started by: twistd -n convex-backend",
    )
    parser.add_argument("--version", action="version", version=f"convex-backend {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    admin_key = commands.add_parser(
        "admin-key",
        help="print an admin key for the deployment",
        description="Print an admin key on one line. Every key printed stays valid until the instance secret changes. "
        "The server need not be running, but must have been started once, unless name and secret are given.",
    )
    _add_key_options(admin_key)
    admin_key.add_argument("--read-only", action="store_true", help="the key may look at everything and change nothing")
    compact = commands.add_parser(
        "compact",
        help="give free space in the database file back to the disk",
        description="Write the database file anew without the space that is free in it. The server must be stopped; the disk needs room for a second "
        "copy of what is alive. A server reuses its free space by itself: this pays after much was deleted, or after --retention became shorter.",
    )
    _add_persistence(compact)
    backup = commands.add_parser(
        "backup",
        help="copy database, stored files and credentials of a deployment",
        description="Copy database, stored files and credentials to a new directory, while the server runs or not. The copy is that of one moment. "
        "To use it, start a server in a copy of the directory.",
    )
    backup.add_argument("directory", metavar="DIRECTORY", help="where to; made, and must not hold anything yet")
    _add_persistence(backup)
    _add_local_storage(backup)
    push_commands.add_commands(commands, _add_key_options, os.environ)
    return parser


def _add_persistence(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--persistence",
        metavar="sqlite://PATH",
        default=os.environ.get("CONVEX_PERSISTENCE") or DEFAULT_PERSISTENCE,
        help=f"the database [env CONVEX_PERSISTENCE; default: {DEFAULT_PERSISTENCE}]",
    )


def _add_local_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--local-storage",
        metavar="DIR",
        default=os.environ.get("CONVEX_LOCAL_STORAGE") or DEFAULT_LOCAL_STORAGE,
        help=f"the server's directory [env CONVEX_LOCAL_STORAGE; default: {DEFAULT_LOCAL_STORAGE}]",
    )


def _add_key_options(command: argparse.ArgumentParser) -> None:
    """Where the credentials are that keys are made from."""
    _add_local_storage(command)
    command.add_argument(
        "--instance-name",
        default=os.environ.get("INSTANCE_NAME") or None,
        help="instead of the stored one [env INSTANCE_NAME]",
    )
    command.add_argument(
        "--instance-secret",
        metavar="HEX",
        default=os.environ.get("INSTANCE_SECRET") or None,
        help="instead of the stored one [env INSTANCE_SECRET]",
    )


def _admin_key(arguments: argparse.Namespace, *, read_only: bool) -> str:
    name: str | None = arguments.instance_name
    secret: bytes | None = None
    try:
        if name is not None:
            check_instance_name(name)
    except ValueError as error:
        fail(f"--instance-name {error}")
    try:
        if arguments.instance_secret is not None:
            secret = parse_secret(arguments.instance_secret)
    except ValueError as error:
        fail(f"--instance-secret {error}")
    if secret is None:
        try:
            stored = read_credentials(Path(arguments.local_storage))
        except BadCredentials as error:
            fail(str(error))
        if stored is None:
            fail(
                f"no credentials in {Path(arguments.local_storage).absolute()}: start the server once, or name its directory by "
                "--local-storage"
            )
        name, secret = name or stored.name, stored.secret
    return Keys(name or DEFAULT_INSTANCE_NAME, secret, os.urandom, time.time).issue(read_only=read_only)


def _compact(persistence: str) -> str:
    # Loaded here: the other commands need no SQLite.
    from convex_backend.storage.compaction import compact

    try:
        path = parse_persistence(persistence, Path.cwd())
    except ValueError as error:
        fail(f"--persistence {error}")
    if path == MEMORY:
        fail("--persistence must name a file to compact")
    began = time.monotonic()
    try:
        done = compact(path)
    except ConvexError as error:
        fail(str(error))
    sizes = f"{done.before_bytes / 1e6:.1f} MB before, {done.after_bytes / 1e6:.1f} MB now"
    return f"compacted {path} in {time.monotonic() - began:.1f} s: {sizes}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :param argv: arguments without the program's name; by default those of the process.
    :returns: the exit code.
    """
    arguments = _parser().parse_args(argv)
    if arguments.command == "admin-key":
        print(_admin_key(arguments, read_only=arguments.read_only))
        return 0
    if arguments.command == "compact":
        print(_compact(arguments.persistence))
        return 0
    if arguments.command == "backup":
        # Loaded here, as for compact.
        from convex_backend.service import backup

        print(backup.run(arguments.persistence, arguments.local_storage, arguments.directory))
        return 0
    key = arguments.admin_key or _admin_key(arguments, read_only=False)
    print(push_commands.RUN[arguments.command](arguments, key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
