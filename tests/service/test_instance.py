"""Credential files and the console script that reads them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from convex_backend import cli
from convex_backend.application.keys import Keys
from convex_backend.service.instance import BadCredentials, Credentials, Instance, prepare_instance, read_credentials

SECRET = bytes(range(32))


def prepare(tmp_path: Path, name: str | None = None, secret: bytes | None = None) -> Instance:
    """Prepare the instance in ``tmp_path/storage`` with a fixed random source."""
    return prepare_instance(tmp_path / "storage", name, secret, "convex-self-hosted", lambda size: b"\x05" * size)


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_first_start_makes_private_files(tmp_path: Path) -> None:
    """Name and secret are made once, in files and directories that only the owner can read."""
    instance = prepare(tmp_path)
    assert instance.first_start
    assert instance.credentials == Credentials("convex-self-hosted", b"\x05" * 32)
    directory = tmp_path / "storage" / "credentials"
    assert sorted(path.name for path in directory.iterdir()) == ["instance_name", "instance_secret"]
    assert (directory / "instance_secret").read_text() == "05" * 32 + "\n"
    assert [mode(path) for path in directory.iterdir()] == [0o600, 0o600]
    assert [mode(directory), mode(directory.parent)] == [0o700, 0o700]


def test_later_starts_change_nothing(tmp_path: Path) -> None:
    """Preparing again gives the same credentials and does not touch the files."""
    first = prepare(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "storage" / "credentials").iterdir()}
    second = prepare_instance(tmp_path / "storage", None, None, "other", lambda size: b"\x06" * size)
    assert not second.first_start
    assert not second.secret_changed
    assert second.credentials == first.credentials
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_wide_modes_are_narrowed(tmp_path: Path) -> None:
    """A secret that was copied with wide permissions becomes private again."""
    prepare(tmp_path)
    secret = tmp_path / "storage" / "credentials" / "instance_secret"
    secret.chmod(0o644)
    prepare(tmp_path)
    assert mode(secret) == 0o600


def test_given_values_win_and_are_kept(tmp_path: Path) -> None:
    """Name and secret by option replace the stored ones, and a changed secret is reported."""
    prepare(tmp_path)
    instance = prepare(tmp_path, "otter", SECRET)
    assert (instance.first_start, instance.secret_changed) == (False, True)
    assert read_credentials(tmp_path / "storage") == Credentials("otter", SECRET)
    assert prepare(tmp_path).credentials == Credentials("otter", SECRET)
    assert mode(tmp_path / "storage" / "credentials" / "instance_secret") == 0o600


def test_a_start_cut_before_the_secret_is_still_a_first_start(tmp_path: Path) -> None:
    """A name without a secret does not stop the server: the secret is made now."""
    prepare(tmp_path)
    (tmp_path / "storage" / "credentials" / "instance_secret").unlink()
    assert read_credentials(tmp_path / "storage") is None
    assert prepare(tmp_path).first_start


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("instance_secret", b"short", "instance_secret is damaged: it must be 64 hexadecimal digits"),
        ("instance_secret", b"", "instance_secret is damaged"),
        ("instance_secret", b"\xff" * 64, "instance_secret is damaged: it is not ASCII text"),
        ("instance_name", b"a|b", "instance_name is damaged"),
        ("instance_name", b"", "instance_name is damaged"),
        ("instance_name", None, "cannot read"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    """A file that cannot be used stops the start with one line; it is never overwritten."""
    prepare(tmp_path)
    path = tmp_path / "storage" / "credentials" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(BadCredentials, match=message):
        prepare(tmp_path)
    assert content is None or path.read_bytes() == content


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    """What cannot be created is told with its path."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "credentials").write_text("")
    with pytest.raises(BadCredentials, match="cannot create"):
        prepare(tmp_path)


def test_secrets_do_not_show_in_reprs(tmp_path: Path) -> None:
    """Credentials can be logged."""
    assert repr(SECRET) not in repr(prepare(tmp_path, secret=SECRET))


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a successful command."""
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONVEX_LOCAL_STORAGE", "INSTANCE_NAME", "INSTANCE_SECRET"):
        monkeypatch.delenv(name, raising=False)


def test_admin_key_prints_a_valid_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints one line: a key that the server with these credentials accepts."""
    credentials = prepare(tmp_path).credentials
    keys = Keys(credentials.name, credentials.secret, lambda size: bytes(size), lambda: 1.0, None)
    out = run_cli(capsys, "admin-key", "--local-storage", str(tmp_path / "storage"))
    assert out.count("\n") == 1
    assert not keys.check_admin(out.strip()).read_only
    out = run_cli(capsys, "admin-key", "--local-storage", str(tmp_path / "storage"), "--read-only")
    assert keys.check_admin(out.strip()).read_only


def test_admin_key_from_name_and_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a directory, name and secret are enough."""
    out = run_cli(capsys, "admin-key", "--instance-name", "otter", "--instance-secret", SECRET.hex())
    assert Keys("otter", SECRET, lambda size: bytes(size), lambda: 1.0, None).check_admin(out.strip()).is_admin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["admin-key", "--local-storage", "missing"], "no credentials in "),
        (["admin-key", "--instance-secret", "hunter2"], "--instance-secret must be 64 hexadecimal digits"),
        (["admin-key", "--instance-name", "a|b"], "--instance-name must not contain"),
    ],
)
def test_admin_key_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """A mistake ends with code 1 and one line on standard error; nothing is created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 1
    assert captured.err.startswith(f"convex-backend: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_console_script_tells_its_version_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` and ``--help`` work without a command."""
    for argument, text in (("--version", "convex-backend "), ("--help", "admin-key")):
        with pytest.raises(SystemExit) as caught:
            cli.main([argument])
        assert caught.value.code == 0
        assert text in capsys.readouterr().out
