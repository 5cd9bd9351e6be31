"""Source archives from PyPI that tests read but that cannot be installed, fetched once per machine and version."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def source_folder(name: str, version: str, sha256: str) -> Path:
    """The unpacked source archive of a package, downloaded by pip if need be.

    :raises RuntimeError: the archive is not the one with the digest *sha256*.
    """
    root = Path(os.environ.get("CONVEX_BACKEND_TEST_CACHE", Path(tempfile.gettempdir()) / "convex-backend-tests"))
    folder = root / f"{name}-{version}-{sha256[:16]}"
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock-pypi", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*command, "--dest", str(folder), f"{name}=={version}"], check=True, timeout=300)
            archive = folder / f"{name}-{version}.tar.gz"
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != sha256:
                raise RuntimeError(f"{archive.name} has the digest {found}")
            with tarfile.open(archive) as members:
                members.extractall(folder, filter="data")
            (folder / "complete").touch()
    return folder / f"{name}-{version}"
