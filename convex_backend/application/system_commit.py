"""A transaction of our own, tried again until it commits; or a part of somebody else's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from convex_backend.deferreds import shield
from convex_backend.errors import OccConflict, Rerun, ServerFault, Transient

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

T = TypeVar("T")
#: Tries before a conflict is believed to be for good.
ATTEMPTS = 16
_log = Logger()
_INSIST_SECONDS = 1.0


async def system_commit(
    database: Database, writer: str, work: Callable[[Transaction], Awaitable[T]], *, attempts: int = ATTEMPTS
) -> T:
    """Do *work* in a transaction without limits and commit it; on a conflict all of it is done again.

    :param writer: who writes, for the conflict texts of others. :param attempts: tries, after which a conflict is raised.
    :returns: what *work* returned in the try that was committed, once it is durable.
    :raises OccConflict: others kept changing what it reads. :raises ServerFault, Overloaded: it has not happened.
    Cancelling drops the answer; the commit may still happen.
    """
    return await shield(_tries(database, writer, work, attempts))


async def commit_in(
    database: Database, transaction: Transaction | None, writer: str, work: Callable[[Transaction], Awaitable[T]]
) -> T:
    """Do *work* as a part of *transaction*, or, when that is ``None``, as :func:`system_commit` does."""
    return await (system_commit(database, writer, work) if transaction is None else work(transaction))


async def read_in(
    database: Database, transaction: Transaction | None, look: Callable[[Transaction], Awaitable[T]]
) -> T:
    """What *look* finds in *transaction*, or, when that is ``None``, at the newest durable state."""
    if transaction is not None:
        return await look(transaction)
    own = database.begin("query")
    try:
        return await look(own)
    finally:
        own.close()


async def _tries(database: Database, writer: str, work: Callable[[Transaction], Awaitable[T]], attempts: int) -> T:
    attempt = 1
    while True:
        transaction = database.begin("system", writer=writer)
        try:
            result = await work(transaction)
            await database.commit(transaction)
            return result
        except (OccConflict, Rerun):
            if attempt == attempts:
                raise
            attempt += 1
        finally:
            transaction.close()


async def insist(
    database: Database, writer: str, work: Callable[[Transaction], Awaitable[T]], clock: IReactorTime
) -> T:
    """As :func:`system_commit` for what must be written down whatever happens: tried every second until it is, or the wait is cancelled."""
    while True:
        try:
            return await system_commit(database, writer, work)
        except (Transient, ServerFault) as error:
            _log.warn("the {writer} cannot write; it goes on trying: {error}", writer=writer, error=error)
            await deferLater(clock, _INSIST_SECONDS)
