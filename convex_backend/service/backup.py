"""``convex-backend backup DIRECTORY``: everything that a deployment is, copied beside the running server.

::

    DIRECTORY/convex_local_backend.sqlite3            the database at one moment
    DIRECTORY/convex_local_storage/credentials/       name and secret, so that admin keys stay valid
    DIRECTORY/convex_local_storage/files/             contents of stored files

The names are the server's defaults: a server that is started in a copy of the directory has the deployment. Code, variables and schedules are in
the database; what ``"use node"`` actions need on disk is made from it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from convex_backend.errors import ConvexError
from convex_backend.service.configuration import (
    DEFAULT_INSTANCE_NAME,
    DEFAULT_LOCAL_STORAGE,
    DEFAULT_PERSISTENCE,
    fail,
)
from convex_backend.service.instance import BadCredentials, prepare_instance, read_credentials
from convex_backend.service.option_values import MEMORY, parse_persistence
from convex_backend.storage.backup import copy_blobs, copy_database
from convex_backend.storage.durability import sync

DATABASE_NAME = DEFAULT_PERSISTENCE.removeprefix("sqlite://")
FILES_NAME = "files"


def run(persistence: str, local_storage: str, directory: str) -> str:
    """Make a backup; a mistake or a failure ends the process with one line and leaves no *directory*.

    :param persistence: ``sqlite://PATH`` of the server. :param local_storage: its directory. :param directory: must be empty or not exist.
    :returns: one line that says what was copied.
    """
    try:
        path = parse_persistence(persistence, Path.cwd())
    except ValueError as error:
        fail(f"--persistence {error}")
    if path == MEMORY:
        fail("--persistence must name a file to back up")
    target = Path(directory).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        fail(f"{target} exists already and is not an empty directory")
    began = time.monotonic()
    try:
        data, files, contents = back_up(path, Path(local_storage).absolute(), target)
    except (ConvexError, BadCredentials) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write to {target}: {error}")
    return (
        f"backed up to {target} in {time.monotonic() - began:.1f} s: "
        f"{data / 1e6:.1f} MB of data, {files} {'file' if files == 1 else 'files'} of {contents / 1e6:.1f} MB"
    )


def back_up(database: str, local_storage: Path, target: Path) -> tuple[int, int, int]:
    """Copy a deployment to *target*, which appears when it is whole and on the disk.

    :returns: bytes of the database, number of stored files, their bytes.
    :raises BadCredentials: *local_storage* has none, or they cannot be read. :raises ConvexError: see ``storage.backup.copy_database``.
    :raises OSError: the disk is full, or something may not be read.
    """
    credentials = read_credentials(local_storage)
    if credentials is None:
        raise BadCredentials(
            f"no credentials in {local_storage}: name the server's directory by --local-storage (and its database by --persistence)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Mode 0700. A copy that was cut off keeps this name, and is not taken for a backup.
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        storage = partial / DEFAULT_LOCAL_STORAGE
        prepare_instance(storage, credentials.name, credentials.secret, DEFAULT_INSTANCE_NAME, os.urandom)
        early = copy_blobs(local_storage / FILES_NAME, storage / FILES_NAME)
        data = copy_database(database, partial / DATABASE_NAME)
        late = copy_blobs(local_storage / FILES_NAME, storage / FILES_NAME)
        sync(partial)
        partial.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return data, early[0] + late[0], early[1] + late[1]
