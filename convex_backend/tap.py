"""The twistd plug-in: ``Options`` reads the command line and the environment, ``makeService`` puts the server together.

A bad value prints one line and exits with code 1 before anything is created. The meaning of each option is checked in
``service/configuration.py``.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from twisted.application.service import IService
from twisted.python import usage

from convex_backend import __version__
from convex_backend.service import configuration


class Options(usage.Options):
    """Command line of ``twistd convex-backend``. After parsing, :attr:`configuration` holds the checked values."""

    synopsis = "[options]"
    longdesc = (
        "A reactive backend in Python for the official Convex clients and CLI. An option given on the command line wins over its "
        "environment variable."
    )
    optParameters = [
        [option.name, None, None, option.help_text] for option in configuration.OPTIONS if not option.is_flag
    ]
    optFlags = [[option.name, None, option.help_text] for option in configuration.OPTIONS if option.is_flag]
    configuration: configuration.Configuration

    def opt_version(self) -> NoReturn:
        """Print the version of convex-backend and exit."""
        print(f"convex-backend {__version__}")
        sys.exit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The help text, wide enough that no option's description is torn apart on a usual terminal."""
        text: str = super().getUsage(width or int(os.environ.get("COLUMNS", "100") or "100"))
        return text

    def parseArgs(self, *rest: str) -> None:
        """Refuse what is not an option.

        :raises usage.UsageError: when there is any.
        """
        if rest:
            raise usage.UsageError(f"unexpected argument {rest[0]!r}; options begin with --")

    def postOptions(self) -> None:
        """Check everything together.

        :raises usage.UsageError: with one line for the operator.
        """
        given = {name: value for name, value in self.items() if value not in (None, 0)}
        try:
            self.configuration = configuration.configure(given, os.environ)
        except configuration.BadOption as error:
            raise usage.UsageError(str(error)) from error

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse *options*; a mistake ends the process with one line instead of twistd's page of help."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            configuration.fail(str(error))


def makeService(options: Options) -> IService:
    """Put the server together for twistd. Nothing is opened or created before the service starts.

    :param options: as parsed.
    """
    # Loading makes next to no garbage: collecting only slows it down. The service turns this back when it is ready.
    gc.disable()
    from twisted.internet import reactor

    from convex_backend.errors import ConvexError
    from convex_backend.service.backend import make_backend
    from convex_backend.service.steady_clock import use_steady_clock

    use_steady_clock(reactor)
    observer = None
    if _logs_to_console(options):
        from convex_backend.service.logging import ConsoleObserver, from_level

        observer = ConsoleObserver(sys.stdout, from_level(options.configuration.log_level))
    try:
        return make_backend(options.configuration, reactor, observer)
    except (configuration.BadOption, ConvexError) as error:
        configuration.fail(str(error))


def _logs_to_console(options: Options) -> bool:
    """Whether twistd would write its own kind of log to the terminal: nothing else was asked for."""
    twistd = getattr(options, "parent", None)
    if not twistd or not twistd.get("nodaemon"):
        return False
    return twistd.get("logfile") in (None, "", "-") and not twistd.get("logger") and not twistd.get("syslog")
