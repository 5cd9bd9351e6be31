"""The checker finds what it is there to find: each broken rule is noticed, and a good story is not blamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sync_live.bank import ACCOUNTS, BALANCE
from tests.sync_live.checker import History
from tests.sync_live.sync_client import ZERO, ProtocolError, SyncClient, encode_ts


def values(counter: int, *mine: str) -> dict[str, Any]:
    """A client's results after *counter* transfers between the first two accounts."""
    view: dict[str, Any] = {f"balance:{n}": {"balance": BALANCE, "version": 0} for n in range(ACCOUNTS)}
    view["balance:0"] = {"balance": BALANCE - counter, "version": counter}
    view["balance:1"] = {"balance": BALANCE + counter, "version": counter}
    view["counter"] = counter
    view["audit"] = {"counter": counter, "balances": ACCOUNTS * BALANCE, "versions": 2 * counter}
    view["mine"] = list(mine)
    return view


def good_story() -> tuple[History, dict[str, list[int | None]], int]:
    """Two transfers at 10 and 20, seen by two clients at 5, 10, 15 and 25."""
    history = History()
    history.observe("a", 5, values(0))
    history.acknowledge("a", "a.0", 1, 10)
    history.observe("a", 10, values(1, "a.0"))
    history.observe("b", 15, values(1))
    history.acknowledge("b", "b.0", 2, 20)
    history.observe("b", 25, values(2, "b.0"))
    return history, {"a.0": [1], "b.0": [2]}, 2


OWNERS = {"a.0": "a", "b.0": "b", "b.1": "b"}


def test_a_good_story_is_not_blamed() -> None:
    """Nothing is noted."""
    history, applied, counter = good_story()
    history.check(applied, counter, OWNERS)
    assert history.violations == []


def _torn(history: History, applied: dict[str, Any]) -> None:
    history.observe("a", 26, {**values(2, "a.0"), "balance:1": {"balance": BALANCE + 1, "version": 1}})


def _versions_torn(history: History, applied: dict[str, Any]) -> None:
    history.observe("a", 26, {**values(2, "a.0"), "counter": 3})


def _too_old(history: History, applied: dict[str, Any]) -> None:
    history.observe("a", 26, values(1, "a.0"))


def _too_new(history: History, applied: dict[str, Any]) -> None:
    history.observe("a", 19, values(2, "a.0"))


def _own_write_missing(history: History, applied: dict[str, Any]) -> None:
    history.observe("a", 16, values(1))


def _twice(history: History, applied: dict[str, Any]) -> None:
    applied["b.1"] = [None, None]


def _lost(history: History, applied: dict[str, Any]) -> None:
    history.acknowledge("b", "b.1", None, 30)


def _answered_differently(history: History, applied: dict[str, Any]) -> None:
    history.acknowledge("a", "a.0", 2, 10)


@pytest.mark.parametrize(
    "break_rule",
    [_torn, _versions_torn, _too_old, _too_new, _own_write_missing, _twice, _lost, _answered_differently],
    ids=lambda rule: rule.__name__,
)
def test_a_broken_rule_is_noticed(break_rule: Callable[[History, dict[str, Any]], None]) -> None:
    """One event that breaks one rule is enough."""
    history, applied, counter = good_story()
    break_rule(history, applied)
    history.check(applied, counter, OWNERS)
    assert history.violations


def transition(start: int, end: int, *modifications: dict[str, Any], query_set: int = 1) -> dict[str, Any]:
    """A Transition of the first query set."""
    before = ZERO if start == 0 else {"querySet": query_set, "identity": 0, "ts": encode_ts(start)}
    after = {"querySet": query_set, "identity": 0, "ts": encode_ts(end)}
    return {"type": "Transition", "startVersion": before, "endVersion": after, "modifications": list(modifications)}


def updated(value: Any, query_id: int = 0) -> dict[str, Any]:
    """A ``QueryUpdated``."""
    return {"type": "QueryUpdated", "queryId": query_id, "value": value, "logLines": [], "journal": None}


def waiting_client() -> SyncClient:
    """A client that has asked for one query and has seen nothing newer than 100."""
    client = SyncClient(0)
    client.max_observed = 100
    client.subscribe("q", "bank:counter", {})
    client._told = 100
    client._sent_query_set = 1
    client._unconfirmed = [(1, {0}, set())]
    return client


@pytest.mark.parametrize(
    "messages",
    [
        [transition(0, 99, updated(1))],
        [transition(0, 100)],
        [transition(0, 100, updated(1), updated(2))],
        [transition(0, 100, updated(1, 7), updated(1))],
        [transition(0, 100, updated(1), query_set=2)],
        [transition(0, 100, updated(1)), transition(100, 99)],
        [transition(0, 100, updated(1)), transition(101, 102)],
        [transition(0, 100, updated(1)), transition(100, 101, updated(1))],
        [transition(0, 100, updated(1)), {"type": "MutationResponse", "requestId": 0, "success": False}],
        [{"type": "Nonsense"}],
    ],
    ids=["older", "missing", "twice", "foreign", "future", "backwards", "gap", "unchanged", "unasked", "unknown"],
)
def test_a_message_that_breaks_the_protocol_is_noticed(messages: list[dict[str, Any]]) -> None:
    """All but the last message are believed; the last is not."""
    client = waiting_client()
    for message in messages[:-1]:
        client._receive(message)
    with pytest.raises(ProtocolError):
        client._receive(messages[-1])
