"""Options and their meaning: names, environment variables, defaults, and the checks that need no reactor and create nothing.

``OPTIONS`` is the one list from which the command line, ``--help``, the README's table and its test are made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import attrs

from convex_backend.application.keys import check_instance_name, check_literal_key, parse_secret
from convex_backend.application.scheduler_options import SchedulerOptions
from convex_backend.service.option_values import (
    Listen,
    parse_backoff,
    parse_context_reuse,
    parse_flag,
    parse_host,
    parse_listen,
    parse_local_storage,
    parse_log_level,
    parse_origin,
    parse_parallelism,
    parse_persistence,
    parse_retention,
    parse_runners,
    parse_timeout,
)

T = TypeVar("T")

DEFAULT_PORT: Final = 3210
MAX_PORT: Final = 65535
DEFAULT_PERSISTENCE: Final = "sqlite://convex_local_backend.sqlite3"
DEFAULT_LOCAL_STORAGE: Final = "convex_local_storage"
DEFAULT_INSTANCE_NAME: Final = "convex-self-hosted"
DEFAULT_ACTION_TIMEOUT_SECONDS: Final = 600.0
DEFAULT_RETENTION_SECONDS: Final = 2 * 86_400.0


@attrs.frozen(slots=True)
class Option:
    """One option of the server.

    :param name: without dashes.
    :param environment: the variable that gives the value when the command line does not, or ``None``.
    :param default: as the documentation prints it, ``""`` for none.
    :param description: for ``--help``, without the variable and the default.
    """

    name: str
    environment: str | None
    default: str
    description: str
    is_flag: bool = False

    @property
    def help_text(self) -> str:
        """The description with what a user needs to know of variable and default."""
        notes = [f"env {self.environment}"] if self.environment else []
        if self.default:
            notes.append(f"default: {self.default}")
        return f"{self.description} [{'; '.join(notes)}]" if notes else self.description


OPTIONS: Final = (
    Option(
        "port",
        None,
        "3210",
        "port of the API and the sync socket; 0 picks one and prints it; or a Twisted endpoint string",
    ),
    Option("host", None, "0.0.0.0", "IP address to listen on"),
    Option(
        "site-port",
        None,
        "the port + 1",
        "port of HTTP actions; 0 means none (they are also under /http/ of the main port)",
    ),
    Option(
        "persistence", "CONVEX_PERSISTENCE", DEFAULT_PERSISTENCE, "the database, sqlite://PATH (relative or absolute)"
    ),
    Option("local-storage", "CONVEX_LOCAL_STORAGE", DEFAULT_LOCAL_STORAGE, "directory for files and credentials"),
    Option("instance-name", "INSTANCE_NAME", DEFAULT_INSTANCE_NAME, "name of the deployment, part of its admin keys"),
    Option(
        "instance-secret", "INSTANCE_SECRET", "generated once and kept", "64 hex digits from which all keys are made"
    ),
    Option("admin-key", "CONVEX_ADMIN_KEY", "", "a literal admin key, accepted beside the generated ones"),
    Option("cloud-origin", "CONVEX_CLOUD_ORIGIN", "http://127.0.0.1:PORT", "public URL of the main port"),
    Option("site-origin", "CONVEX_SITE_ORIGIN", "http://127.0.0.1:SITEPORT", "public URL of HTTP actions"),
    Option(
        "site-url",
        "CONVEX_DEV_SITE_URL",
        "",
        "URL of the front end's dev server, which gets every path of the main port that is not the backend's",
    ),
    Option(
        "disable-beacon", "DISABLE_BEACON", "", "accepted for compatibility: there is no beacon at all", is_flag=True
    ),
    Option("runners", "CONVEX_RUNNERS", "min(cores, 4)", "number of JavaScript processes for queries and mutations"),
    Option(
        "context-reuse",
        "CONVEX_CONTEXT_REUSE",
        "off",
        "off: each run of a query or mutation has a fresh JavaScript context; realm: runs share contexts that are checked after each",
    ),
    Option("action-timeout", "ACTIONS_USER_TIMEOUT_SECS", "600", "seconds that an action may take"),
    Option(
        "scheduler-parallelism",
        "CONVEX_SCHEDULER_PARALLELISM",
        "8",
        "number of scheduled functions, and of cron jobs, that run at once",
    ),
    Option(
        "scheduler-backoff",
        "CONVEX_SCHEDULER_BACKOFF",
        "0.5-7200",
        "seconds before a scheduled function that the server could not run is tried again, at first and at most",
    ),
    Option(
        "scheduler-conflict-backoff",
        "CONVEX_SCHEDULER_CONFLICT_BACKOFF",
        "0.1-60",
        "the same for a scheduled mutation that kept conflicting with others",
    ),
    Option(
        "retention",
        "CONVEX_RETENTION",
        "2d",
        "how far back reads at a timestamp, and exports, reach: a time such as 90s, 30m, 12h or 2d, at least 60s",
    ),
    Option(
        "redact-logs-to-client",
        "REDACT_LOGS_TO_CLIENT",
        "off",
        "send neither log lines nor texts of server errors to clients",
        is_flag=True,
    ),
    Option(
        "demo",
        "CONVEX_DEMO",
        "off",
        "deploy a small chat app, if nothing is deployed, and serve its page at /demo",
        is_flag=True,
    ),
    Option("log-level", "CONVEX_LOG_LEVEL", "info", "least level of lines on the console: debug, info, warn or error"),
)


class BadOption(ValueError):
    """An option's value cannot be used; the text is one line that names the option or variable."""


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 1."""
    print(f"convex-backend: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


@attrs.frozen(slots=True)
class Configuration:
    """The server's configuration, checked.

    :param site: the listener for HTTP actions, or ``None`` for none.
    :param database_path: absolute path, or ``":memory:"``.
    :param local_storage: absolute path.
    :param instance_name: as given, or ``None`` to use the stored name or the default.
    :param instance_secret: 32 bytes as given, or ``None`` to use the stored one or make one.
    :param cloud_origin: as given without trailing slash, or ``None``: made from the port.
    :param retention_seconds: how long history is kept.
    :param context_reuse: ``off`` or ``realm``.
    """

    cloud: Listen
    site: Listen | None
    database_path: str
    local_storage: Path
    instance_name: str | None = None
    instance_secret: bytes | None = attrs.field(default=None, repr=False)
    admin_key: str | None = attrs.field(default=None, repr=False)
    cloud_origin: str | None = None
    site_origin: str | None = None
    site_url: str | None = None
    runners: int = 1
    context_reuse: str = "off"
    action_timeout_seconds: float = DEFAULT_ACTION_TIMEOUT_SECONDS
    retention_seconds: float = DEFAULT_RETENTION_SECONDS
    redact_logs_to_client: bool = False
    demo: bool = False
    scheduler: SchedulerOptions = attrs.field(factory=SchedulerOptions)
    log_level: str = "info"


class _Values:
    """Values by option name, with the name to blame for each: the option or its variable."""

    def __init__(self, given: Mapping[str, object], environment: Mapping[str, str]) -> None:
        self._values: dict[str, tuple[str, str]] = {}
        for option in OPTIONS:
            value = given.get(option.name)
            if value is not None:
                self._values[option.name] = (f"--{option.name}", "true" if option.is_flag else str(value))
            # An empty variable counts as unset: compose files pass on what is not there as "".
            elif option.environment and environment.get(option.environment):
                self._values[option.name] = (option.environment, environment[option.environment])

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The value of option *name* by *parse*, whose ``ValueError`` becomes a :class:`BadOption`."""
        return self._parse(*self._values[name], parse) if name in self._values else default

    def read_text(self, name: str, parse: Callable[[str], T], default: str) -> T:
        """The same where the default is a text that may turn out to be unusable here too."""
        return self._parse(*self._values.get(name, (f"--{name}", default)), parse)

    def _parse(self, source: str, text: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise BadOption(f"{source} {error}") from error


def configure(
    given: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    directory: Path | None = None,
    cores: int | None = None,
) -> Configuration:
    """Check the options.

    :param given: values of the command line by option name; flags that are absent are not in it.
    :param environment: environment variables.
    :param directory: what relative paths start from, by default the current directory.
    :param cores: usable processor cores, by default those of this process.
    :raises BadOption: for the first mistake.
    """
    values = _Values(given, environment)
    base = directory or Path.cwd()
    host = values.read("host", parse_host, None)
    cloud = values.read("port", lambda text: parse_listen(text, host), parse_listen(str(DEFAULT_PORT), host))
    cloud_origin = values.read("cloud-origin", parse_origin, None)
    if cloud.port is None and cloud_origin is None:
        raise BadOption("--cloud-origin is needed when --port is an endpoint string other than plain tcp:PORT")
    site_origin = values.read("site-origin", parse_origin, None)
    site = values.read("site-port", lambda text: _parse_site(text, host or cloud.host), _site_after(cloud))
    if site is not None and site.port is None and site_origin is None:
        raise BadOption("--site-origin is needed when --site-port is an endpoint string other than plain tcp:PORT")
    if site is not None and site.port and site.port == cloud.port:
        raise BadOption(f"--site-port {site.port} is the main port too: choose another, or 0 for none")
    if site is not None and site.port == MAX_PORT + 1:
        raise BadOption(f"--site-port is needed when --port is {MAX_PORT}; 0 means none")
    values.read("disable-beacon", parse_flag, False)
    return Configuration(
        cloud=cloud,
        site=site,
        database_path=values.read_text("persistence", lambda text: parse_persistence(text, base), DEFAULT_PERSISTENCE),
        local_storage=values.read_text(
            "local-storage", lambda text: parse_local_storage(text, base), DEFAULT_LOCAL_STORAGE
        ),
        instance_name=values.read("instance-name", check_instance_name, None),
        instance_secret=values.read("instance-secret", parse_secret, None),
        admin_key=values.read("admin-key", check_literal_key, None),
        cloud_origin=cloud_origin,
        site_origin=site_origin,
        site_url=values.read("site-url", parse_origin, None),
        runners=values.read("runners", parse_runners, min(cores or usable_cores(), 4)),
        context_reuse=values.read("context-reuse", parse_context_reuse, "off"),
        action_timeout_seconds=values.read("action-timeout", parse_timeout, DEFAULT_ACTION_TIMEOUT_SECONDS),
        retention_seconds=values.read("retention", parse_retention, DEFAULT_RETENTION_SECONDS),
        redact_logs_to_client=values.read("redact-logs-to-client", parse_flag, False),
        demo=values.read("demo", parse_flag, False),
        scheduler=_scheduler(values),
        log_level=values.read("log-level", parse_log_level, "info"),
    )


def _scheduler(values: _Values) -> SchedulerOptions:
    default = SchedulerOptions()
    return SchedulerOptions(
        values.read("scheduler-parallelism", parse_parallelism, default.parallelism),
        values.read("scheduler-backoff", parse_backoff, default.backoff),
        values.read("scheduler-conflict-backoff", parse_backoff, default.conflict_backoff),
    )


def _parse_site(text: str, host: str) -> Listen | None:
    if text == "0":
        return None
    if text.isdigit():
        return parse_listen(text, host)
    return parse_listen(text, None)


def _site_after(cloud: Listen) -> Listen | None:
    """The default: the port after the main one, on the same address; none beside an endpoint string that is not plain TCP."""
    if cloud.port is None:
        return None
    return Listen(0, cloud.host, after_main=True) if cloud.port == 0 else Listen(cloud.port + 1, cloud.host)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
