"""The ``"use node"`` code of deployments and its npm packages on disk: written whole, shared, removed (``push.md`` section 15)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from convex_backend.application import node_dependencies, node_packages
from convex_backend.application.node_dependencies import NodeDependencies, NodeDependency
from convex_backend.application.node_packages import NodeCode, NodePackages
from convex_backend.errors import BadRequest
from convex_backend.functions.module_text import ModuleText
from tests.database.documents import run

MS = NodeDependency("ms", "2.1.3")


class Inline:
    """A thread pool and reactor that work at once."""

    def callInThreadWithCallback(self, done: Callable[[bool, Any], None], work: Callable[..., Any], *args: Any) -> None:
        done(True, work(*args))

    def callFromThread(self, work: Callable[..., Any], *args: Any) -> None:
        work(*args)


class Npm:
    """Installs nothing, remembers everything."""

    def __init__(self) -> None:
        self.manifests: list[dict[str, Any]] = []
        self.answer: Callable[[], Any] = lambda: None

    async def __call__(self, directory: Path, cache: Path) -> str | None:
        self.manifests.append(json.loads((directory / "package.json").read_bytes()))
        words: str | None = await self.answer() if callable(getattr(self.answer, "__await__", None)) else self.answer()
        if isinstance(words, Deferred):
            words = await words
        if words is None:
            (directory / "node_modules").mkdir()
        return words


class Disk:
    """Packages in a folder."""

    def __init__(self, folder: Path) -> None:
        inline = Inline()
        self.folder = folder
        self.npm = Npm()
        self.live: set[str] = set()
        self.numbers = iter(range(1000))
        names = lambda: str(next(self.numbers))  # noqa: E731
        self.dependencies = NodeDependencies(
            folder / "node" / "dependencies", install=self.npm, reactor=inline, pool=inline, random_name=names
        )
        self.packages = NodePackages(
            folder / "node" / "packages",
            self.dependencies,
            read_text=self.read,
            is_live=self.live.__contains__,
            reactor=inline,
            pool=inline,
            random_name=names,
        )

    async def read(self, digest: str) -> ModuleText:
        return ModuleText(digest, "", f"// {digest}".encode(), b"{}" if digest == "mapped" else None)

    async def use(self, code: NodeCode) -> Path:
        async with self.packages.use(code) as package:
            assert Path(package.directory).is_dir()
            return Path(package.directory)

    def present(self, kind: str = "packages") -> set[str]:
        return {one.name for one in (self.folder / "node" / kind).iterdir() if not one.name.startswith(".")}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def code(number: int = 0, *dependencies: NodeDependency) -> NodeCode:
    return NodeCode({"a.js": f"hash{number}", "_deps/node/B.js": "mapped"}, dependencies)


def test_what_is_written(disk: Disk) -> None:
    """Modules with their maps, a manifest that makes them ES modules, a place to write, the installed packages."""
    directory = run(disk.use(code(1, MS)))
    assert (directory / "modules" / "a.js").read_text() == "// hash1"
    assert (directory / "modules" / "_deps" / "node" / "B.js.map").read_text() == "{}"
    assert json.loads((directory / "package.json").read_text())["type"] == "module"
    assert (directory / "tmp").is_dir()
    installed = disk.folder / "node" / "dependencies" / str(node_dependencies.dependencies_id([MS]))
    assert (directory / "node_modules").resolve() == (installed / "node_modules").resolve()
    assert disk.npm.manifests == [
        {"name": "convex-external-packages", "version": "1.0.0", "private": True, "dependencies": {"ms": "2.1.3"}}
    ]


def test_shared(disk: Disk) -> None:
    """The same code is the same package, and one installation serves all packages with the same list."""
    first = run(disk.use(code(1, MS)))
    assert run(disk.use(code(1, MS))) == first
    assert run(disk.use(code(2, MS))) != first
    assert code(1, MS).id != code(1).id
    assert len(disk.npm.manifests) == 1


def test_one_installation_at_a_time(disk: Disk) -> None:
    """Who wants the same list while npm is at work waits for it."""
    waiting: Deferred[None] = Deferred()
    disk.npm.answer = lambda: waiting
    uses = [Deferred.fromCoroutine(disk.use(code(number, MS))) for number in range(3)]
    assert len(disk.npm.manifests) == 1
    assert not any(one.called for one in uses)
    waiting.callback(None)
    assert all(one.called for one in uses)
    assert disk.present("dependencies") == {str(node_dependencies.dependencies_id([MS]))}


def test_failed_installation(disk: Disk) -> None:
    """npm's words reach who pushes; nothing half done stays, and the next try asks npm again."""
    disk.npm.answer = lambda: "npm error 404 Not Found"
    with pytest.raises(BadRequest) as caught:
        run(disk.use(code(1, MS)))
    assert caught.value.code == "NodeDependenciesFailed"
    assert caught.value.message.endswith("ms@2.1.3 could not be installed:\nnpm error 404 Not Found")
    assert list((disk.folder / "node" / "dependencies").iterdir()) == []
    disk.npm.answer = lambda: None
    run(disk.use(code(1, MS)))
    assert len(disk.npm.manifests) == 2


def test_removal(disk: Disk) -> None:
    """Packages that nothing uses go, but for the newest; one whose children run, or that is in use, stays."""
    disk.live.add(code(0).id)

    async def scenario() -> None:
        async with disk.packages.use(code(1)):
            for number in (0, *range(2, 7)):
                await disk.use(code(number))
            kept = {code(number).id for number in (0, 1, 5, 6)}
            assert disk.present() == kept
        disk.live.clear()
        await disk.use(code(7))

    run(scenario())
    assert disk.present() == {code(1).id, code(7).id}
    assert node_packages.KEPT == 2


def test_installations_have_a_bound(disk: Disk) -> None:
    """Installations that are not used go, the oldest first, when there are too many."""
    lists = [(NodeDependency("ms", f"2.1.{number}"),) for number in range(node_dependencies.KEPT + 3)]
    for listed in lists:
        run(disk.use(code(0, *listed)))
    kept = disk.present("dependencies")
    assert len(kept) == node_dependencies.KEPT + 1
    assert node_dependencies.dependencies_id(lists[-1]) in kept


def test_what_an_earlier_life_has_left(tmp_path: Path) -> None:
    """Packages are made anew after a restart, installations are used again; what was unfinished goes."""
    before = Disk(tmp_path)
    directory = run(before.use(code(1, MS)))
    (directory / "modules" / "a.js").write_text("damaged")
    (tmp_path / "node" / "dependencies" / ".new-x").mkdir()
    after = Disk(tmp_path)
    assert run(after.use(code(1, MS))) == directory
    assert (directory / "modules" / "a.js").read_text() == "// hash1"
    assert after.npm.manifests == []
    assert not (tmp_path / "node" / "dependencies" / ".new-x").exists()


@pytest.mark.parametrize(
    ("name", "version", "good"),
    [
        ("ms", "2.1.3", True),
        ("@aws-sdk/client-s3", "3.1.0-beta.1+x", True),
        ("JSONStream", "^1.3.5", True),
        ("ms", "latest", False),
        ("ms", "npm:other@1.0.0", False),
        ("ms", "https://example.com/x.tgz", False),
        ("../ms", "1.0.0", False),
        ("-g", "1.0.0", False),
        ("", "1.0.0", False),
    ],
)
def test_names_and_versions(name: str, version: str, good: bool) -> None:
    """Only a name and a version of a registry's package are handed to npm."""
    tree = [{"name": name, "version": version}]
    if good:
        assert node_dependencies.read_dependencies(tree) == (NodeDependency(name, version),)
    else:
        with pytest.raises(BadRequest):
            node_dependencies.read_dependencies(tree)
