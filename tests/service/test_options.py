"""The command line and environment of ``twistd convex-backend`` (issue: options table)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from convex_backend.application.scheduler_options import Backoff, SchedulerOptions
from convex_backend.database.retention import MIN_HISTORY_SECONDS, RetentionSettings
from convex_backend.service.configuration import OPTIONS, BadOption, Configuration, configure
from convex_backend.service.option_values import MIN_RETENTION_SECONDS, Listen
from convex_backend.tap import Options

HEX = "0123456789abcdef" * 4


def parse(tmp_path: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Configuration:
    """The configuration of a command line in the directory *tmp_path* on four cores."""
    options = {}
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        options[name] = value if equals else 1
    return configure(options, environment or {}, directory=tmp_path, cores=4)


def test_defaults(tmp_path: Path) -> None:
    """Without any option the server is the documented one."""
    assert parse(tmp_path) == Configuration(
        cloud=Listen(3210, "0.0.0.0"),
        site=Listen(3211, "0.0.0.0"),
        database_path=str(tmp_path / "convex_local_backend.sqlite3"),
        local_storage=tmp_path / "convex_local_storage",
        instance_name=None,
        instance_secret=None,
        admin_key=None,
        cloud_origin=None,
        site_origin=None,
        runners=4,
        action_timeout_seconds=600.0,
        redact_logs_to_client=False,
    )


@pytest.mark.parametrize(("cores", "runners"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_default_number_of_runners(tmp_path: Path, cores: int, runners: int) -> None:
    """One runner for each core, four at most."""
    assert configure({}, {}, directory=tmp_path, cores=cores).runners == runners


@pytest.mark.parametrize(
    ("arguments", "cloud", "site"),
    [
        (["--port=8000"], Listen(8000), Listen(8001)),
        (["--port=0"], Listen(0), Listen(0, after_main=True)),
        (["--port=0", "--site-port=9000"], Listen(0), Listen(9000)),
        (["--port=8000", "--site-port=0"], Listen(8000), None),
        (["--host=127.0.0.1"], Listen(3210, "127.0.0.1"), Listen(3211, "127.0.0.1")),
        (["--host=localhost"], Listen(3210, "127.0.0.1"), Listen(3211, "127.0.0.1")),
        (["--host=::1"], Listen(3210, "::1"), Listen(3211, "::1")),
        (["--host=[::1]"], Listen(3210, "::1"), Listen(3211, "::1")),
        (["--port=tcp:8000"], Listen(8000), Listen(8001)),
        (["--port=tcp:port=8000:interface=127.0.0.1"], Listen(8000, "127.0.0.1"), Listen(8001, "127.0.0.1")),
        ([r"--port=tcp:8000:interface=\:\:1"], Listen(8000, "::1"), Listen(8001, "::1")),
        (["--port=tcp:0"], Listen(0), Listen(0, after_main=True)),
        (
            ["--port=unix:/run/c.sock", "--cloud-origin=https://c.example"],
            Listen(None, endpoint="unix:/run/c.sock"),
            None,
        ),
        (
            ["--port=systemd:domain=INET:index=0", "--cloud-origin=https://c.example", "--site-port=3211"],
            Listen(None, endpoint="systemd:domain=INET:index=0"),
            Listen(3211),
        ),
        (
            ["--site-port=unix:/run/s.sock", "--site-origin=https://s.example"],
            Listen(3210),
            Listen(None, endpoint="unix:/run/s.sock"),
        ),
        (["--port=65535", "--site-port=0"], Listen(65535), None),
    ],
)
def test_where_to_listen(tmp_path: Path, arguments: list[str], cloud: Listen, site: Listen | None) -> None:
    """Numbers, addresses and endpoint strings say where both listeners are; the second follows the first."""
    configuration = parse(tmp_path, *arguments)
    assert (configuration.cloud, configuration.site) == (cloud, site)


@pytest.mark.parametrize(
    ("option", "variable", "value", "field", "expected"),
    [
        ("persistence", "CONVEX_PERSISTENCE", "sqlite://:memory:", "database_path", ":memory:"),
        ("persistence", "CONVEX_PERSISTENCE", "sqlite:///tmp/x.sqlite3", "database_path", "/tmp/x.sqlite3"),
        ("instance-name", "INSTANCE_NAME", "happy otter-1", "instance_name", "happy otter-1"),
        ("instance-secret", "INSTANCE_SECRET", HEX, "instance_secret", bytes.fromhex(HEX)),
        ("instance-secret", "INSTANCE_SECRET", HEX.upper(), "instance_secret", bytes.fromhex(HEX)),
        ("admin-key", "CONVEX_ADMIN_KEY", "x|y z", "admin_key", "x|y z"),
        ("cloud-origin", "CONVEX_CLOUD_ORIGIN", "https://c.example/", "cloud_origin", "https://c.example"),
        ("cloud-origin", "CONVEX_CLOUD_ORIGIN", "http://[::1]:3210", "cloud_origin", "http://[::1]:3210"),
        ("site-origin", "CONVEX_SITE_ORIGIN", "https://c.example/http/", "site_origin", "https://c.example/http"),
        ("runners", "CONVEX_RUNNERS", "7", "runners", 7),
        ("context-reuse", "CONVEX_CONTEXT_REUSE", "realm", "context_reuse", "realm"),
        ("context-reuse", "CONVEX_CONTEXT_REUSE", "OFF", "context_reuse", "off"),
        ("action-timeout", "ACTIONS_USER_TIMEOUT_SECS", "1.5", "action_timeout_seconds", 1.5),
    ],
)
def test_each_value_by_option_and_by_variable(
    tmp_path: Path, option: str, variable: str, value: str, field: str, expected: object
) -> None:
    """The option and its variable mean the same, the option wins, and an empty variable is none."""
    assert getattr(parse(tmp_path, f"--{option}={value}"), field) == expected
    assert getattr(parse(tmp_path, environment={variable: value}), field) == expected
    assert getattr(parse(tmp_path, f"--{option}={value}", environment={variable: "\n"}), field) == expected
    assert getattr(parse(tmp_path, environment={variable: ""}), field) == getattr(parse(tmp_path), field)


def test_local_storage_is_relative_to_the_directory(tmp_path: Path) -> None:
    """The directory need not exist, nor its parents; its path becomes absolute."""
    assert parse(tmp_path, "--local-storage=a/../b/c").local_storage == tmp_path / "b" / "c"
    assert parse(tmp_path, environment={"CONVEX_LOCAL_STORAGE": "/tmp/x"}).local_storage == Path("/tmp/x")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("YES", True), ("on", True), ("false", False), ("0", False)]
)
def test_switches_by_variable(tmp_path: Path, text: str, expected: bool) -> None:
    """A switch is also set by its variable."""
    environment = {"REDACT_LOGS_TO_CLIENT": text, "DISABLE_BEACON": text}
    assert parse(tmp_path, environment=environment).redact_logs_to_client is expected
    assert parse(tmp_path, "--redact-logs-to-client", "--disable-beacon").redact_logs_to_client is True


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (
            ["--port=65536"],
            {},
            "--port must be a port number from 0 to 65535 or a Twisted endpoint string, not '65536'",
        ),
        (["--port=-1"], {}, "--port must be a port number"),
        (["--context-reuse=on"], {}, "--context-reuse must be off or realm, not 'on'"),
        (["--port="], {}, "--port must be a port number"),
        (["--port=http"], {}, "--port must be a port number"),
        (["--port=tcp:"], {}, "--port must be a port number"),
        (["--port=tcp:99999"], {}, "--port must be a port number"),
        (["--port=tcp:interface=127.0.0.1"], {}, "--port must say a port"),
        (["--port=tcp:80:interface=localhorst"], {}, "--port must be an IP address"),
        (["--port=tcp:80", "--host=::1"], {}, "leave out --host"),
        (["--port=unix:/x"], {}, "--cloud-origin is needed"),
        (["--port=65535"], {}, "--site-port is needed"),
        (["--host=example.com"], {}, "--host must be an IP address"),
        (["--site-port=3210"], {}, "--site-port 3210 is the main port too"),
        (["--site-port=x"], {}, "--site-port must be a port number"),
        (["--site-port=unix:/x"], {}, "--site-origin is needed"),
        (["--persistence=x.sqlite3"], {}, "--persistence must be sqlite://PATH, not 'x.sqlite3'"),
        (["--persistence=postgres://x"], {}, "--persistence must be sqlite://PATH"),
        (["--persistence=sqlite://"], {}, "--persistence has no path"),
        (["--persistence=sqlite://missing/x"], {}, "--persistence names a file in a directory that does not exist"),
        (["--persistence=sqlite://."], {}, "--persistence names a directory"),
        ([], {"CONVEX_PERSISTENCE": "nonsense"}, "CONVEX_PERSISTENCE must be sqlite://PATH"),
        (["--local-storage="], {}, "--local-storage must name a directory"),
        (["--local-storage=a_file"], {}, "--local-storage must name a directory"),
        (["--local-storage=a_file/below"], {}, "--local-storage must name a directory"),
        (["--instance-name=a|b"], {}, '--instance-name must not contain "|" or ":"'),
        (["--instance-name="], {}, "--instance-name must be 1 to 200 printable ASCII"),
        (["--instance-secret=abc"], {}, "--instance-secret must be 64 hexadecimal digits"),
        ([], {"INSTANCE_SECRET": "xyz"}, "INSTANCE_SECRET must be 64 hexadecimal digits"),
        (["--admin-key=a|b:c"], {}, '--admin-key must not be empty or hold a ":" (after its "|", if it has one)'),
        (["--admin-key=ä"], {}, "--admin-key must be printable ASCII"),
        (["--cloud-origin=c.example"], {}, "--cloud-origin must be a URL"),
        (["--cloud-origin=ftp://c.example"], {}, "--cloud-origin must be a URL"),
        (["--cloud-origin=https://u:p@c.example"], {}, "--cloud-origin must be a URL without user"),
        (["--cloud-origin=https://c.example/?q"], {}, "--cloud-origin must be a URL without user"),
        (["--cloud-origin=https://c.example:0"], {}, "--cloud-origin must be a URL"),
        (["--cloud-origin=https://c.example:x"], {}, "--cloud-origin must be a URL"),
        (["--site-origin=https://"], {}, "--site-origin must be a URL"),
        (["--runners=0"], {}, "--runners must be a number from 1 to 256, not '0'"),
        (["--runners=two"], {}, "--runners must be a number"),
        ([], {"CONVEX_RUNNERS": "1000"}, "CONVEX_RUNNERS must be a number"),
        (["--action-timeout=0"], {}, "--action-timeout must be a number of seconds above 0"),
        (["--action-timeout=nan"], {}, "--action-timeout must be a number of seconds above 0"),
        ([], {"ACTIONS_USER_TIMEOUT_SECS": "soon"}, "ACTIONS_USER_TIMEOUT_SECS must be a number of seconds"),
        ([], {"REDACT_LOGS_TO_CLIENT": "maybe"}, "REDACT_LOGS_TO_CLIENT must be true or false, not 'maybe'"),
        ([], {"DISABLE_BEACON": "perhaps"}, "DISABLE_BEACON must be true or false"),
    ],
)
def test_bad_values(tmp_path: Path, arguments: list[str], environment: dict[str, str], message: str) -> None:
    """A value that cannot be used is refused with the name of the option or variable, and nothing is created."""
    (tmp_path / "a_file").write_text("")
    with pytest.raises(BadOption) as caught:
        parse(tmp_path, *arguments, environment=environment)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("argument", ["--persistence=sqlite://locked/x", "--local-storage=locked/x"])
def test_places_that_may_not_be_written(tmp_path: Path, argument: str) -> None:
    """A directory without write permission is told at once."""
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(BadOption, match="may not write"):
        parse(tmp_path, argument)


def test_bad_values_do_not_repeat_secrets(tmp_path: Path) -> None:
    """Messages about secrets and keys leave out what was given."""
    for argument in ("--instance-secret=hunter2hunter2", "--admin-key=hunter2|hunter2:x"):
        with pytest.raises(BadOption) as caught:
            parse(tmp_path, argument)
        assert "hunter2" not in str(caught.value)


def test_configuration_does_not_print_secrets(tmp_path: Path) -> None:
    """A configuration can be logged."""
    text = repr(parse(tmp_path, "--admin-key=hunter2", f"--instance-secret={HEX}"))
    assert "hunter2" not in text
    assert repr(bytes.fromhex(HEX)) not in text


@pytest.mark.parametrize(
    "arguments", [["--port", "x"], ["--no-such-option"], ["stray"], ["--port"], ["--disable-beacon=1"]]
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """twistd's page of help stays away: one line of ours on standard error."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 1
    assert captured.out == ""
    assert captured.err.startswith("convex-backend: ")
    assert captured.err.count("\n") == 1


def test_command_line_reaches_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twistd options object parses what a shell hands over."""
    monkeypatch.chdir(tmp_path)
    for option in OPTIONS:
        if option.environment:
            monkeypatch.delenv(option.environment, raising=False)
    options = Options()
    options.parseOptions(["--port", "8000", "--runners=2", "--redact-logs-to-client"])
    assert options.configuration.cloud == Listen(8000)
    assert options.configuration.runners == 2
    assert options.configuration.redact_logs_to_client is True
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` is complete and ends with exit code 0."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--help"])
    assert not caught.value.code
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert f"--{option.name}" in text
        assert (option.environment or "") in text
        assert option.default in text


def test_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` tells the version of convex-backend, not of Twisted."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--version"])
    assert not caught.value.code
    assert capsys.readouterr().out.startswith("convex-backend ")


@pytest.mark.parametrize("from_environment", [False, True])
def test_scheduler(tmp_path: Path, from_environment: bool) -> None:
    """Parallelism and back-offs of scheduled functions come from the command line or the environment; what is not given stays."""
    if from_environment:
        environment = {
            "CONVEX_SCHEDULER_PARALLELISM": "20",
            "CONVEX_SCHEDULER_BACKOFF": "1-30",
            "CONVEX_SCHEDULER_CONFLICT_BACKOFF": "0.25-5.5",
        }
        found = parse(tmp_path, environment=environment).scheduler
    else:
        found = parse(
            tmp_path,
            "--scheduler-parallelism=20",
            "--scheduler-backoff=1-30",
            "--scheduler-conflict-backoff=0.25-5.5",
        ).scheduler
    assert found == SchedulerOptions(20, Backoff(1.0, 30.0), Backoff(0.25, 5.5))
    assert found.keep_seconds == 7 * 86_400.0


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--scheduler-parallelism=0", "must be a number from 1 to 1024"),
        ("--scheduler-parallelism=x", "must be a number from 1 to 1024"),
        ("--scheduler-backoff=5", "must be two numbers of seconds"),
        ("--scheduler-backoff=5-1", "must be two numbers of seconds"),
        ("--scheduler-backoff=0-1", "must be two numbers of seconds"),
        ("--scheduler-conflict-backoff=a-b", "must be two numbers of seconds"),
        ("--scheduler-conflict-backoff=1-inf", "must be two numbers of seconds"),
    ],
)
def test_scheduler_mistakes(tmp_path: Path, argument: str, text: str) -> None:
    """A value that cannot be used is named with its option."""
    with pytest.raises(BadOption, match=text) as raised:
        parse(tmp_path, argument)
    assert str(raised.value).startswith(argument.partition("=")[0])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("90s", 90), ("1.5m", 90), ("12h", 43_200), ("2 d", 172_800), ("30D", 2_592_000)],
)
def test_retention(tmp_path: Path, text: str, seconds: float) -> None:
    """The window of history is a number with a unit, seconds without one."""
    assert parse(tmp_path, f"--retention={text}").retention_seconds == seconds
    assert parse(tmp_path, environment={"CONVEX_RETENTION": text}).retention_seconds == seconds
    assert parse(tmp_path).retention_seconds == RetentionSettings().history_seconds


@pytest.mark.parametrize("text", ["59", "0", "59.9s", "0.9m", "-5", "2w", "d", "1e3", "x", "nan", "inf"])
def test_retention_mistakes(tmp_path: Path, text: str) -> None:
    """Less than a minute is refused, since reads under way need their snapshots; so is what is no time."""
    with pytest.raises(
        BadOption, match=r"^--retention must be (at least 60 seconds|a time such as 90s, 30m, 12h or 2d)"
    ):
        parse(tmp_path, f"--retention={text}")
    assert MIN_RETENTION_SECONDS == MIN_HISTORY_SECONDS


def test_a_default_that_cannot_be_used(tmp_path: Path) -> None:
    """In a directory that is no place for data the defaults are refused in one line, by the option's name; values that are given do not need them."""
    for name, taken in (("persistence", "convex_local_backend.sqlite3"), ("local-storage", "convex_local_storage")):
        folder = tmp_path / name
        folder.mkdir()
        if name == "persistence":
            (folder / taken).mkdir()
        else:
            (folder / taken).write_text("")
        with pytest.raises(BadOption, match=f"^--{name} "):
            parse(folder)
        value = "sqlite://other.sqlite3" if name == "persistence" else "elsewhere"
        parse(folder, f"--{name}={value}")
