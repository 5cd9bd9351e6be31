"""What must hold for every client, whatever the network and the server did: the rules, apart from the load that is checked.

The bank's invariants (``app/convex/bank.ts``) say whether results of one Transition belong to one commit. The history of (timestamp,
counter) pairs of all clients, with the timestamps of acknowledged transfers, says whether it is the commit that the Transition names.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from tests.sync_live.bank import ACCOUNTS, BALANCE

#: Names of the queries that make up a complete view of the bank, without the client's own list.
BALANCES = tuple(f"balance:{n}" for n in range(ACCOUNTS))


def whole_view(client: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Queries by name: path and arguments."""
    view: dict[str, tuple[str, dict[str, Any]]] = {f"balance:{n}": ("bank:balance", {"n": n}) for n in range(ACCOUNTS)}
    view["counter"] = ("bank:counter", {})
    view["audit"] = ("bank:audit", {"spin": 20})
    view["mine"] = ("bank:mine", {"client": client})
    return view


@dataclass
class Observation:
    """One Transition of one client: what it showed at which timestamp."""

    client: str
    ts: int
    counter: int | None
    mine: tuple[str, ...] | None


@dataclass
class History:
    """What all clients saw, and what was acknowledged to them. Methods may be called from any thread."""

    observations: list[Observation] = field(default_factory=list)
    #: Tag to (sequence number or None, commit timestamp or None).
    acknowledged: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def violation(self, client: str, text: str) -> None:
        """Note a broken rule."""
        with self._lock:
            self.violations.append(f"{client}: {text}")

    def expect(self, client: str, holds: bool, text: str) -> None:
        """Note *text* unless *holds*."""
        if not holds:
            self.violation(client, text)

    def acknowledge(self, client: str, tag: str, seq: int | None, ts: int | None) -> None:
        """A mutation's success was reported to *client*."""
        with self._lock:
            known = self.acknowledged.setdefault(tag, (seq, ts))
        self.expect(client, known[0] == seq, f"{tag} was acknowledged as {known[0]}, then as {seq}")
        if ts is not None:
            self.expect(client, known[1] == ts, f"{tag} was acknowledged at {known[1]}, then at {ts}")

    def observe(self, client: str, ts: int, values: dict[str, Any]) -> None:
        """Check the invariants of one client's results, and keep what is checked at the end.

        :param values: results by name (:func:`whole_view`); checks whose queries are not all there are left out.
        """
        counter = values.get("counter")
        audit = values.get("audit")
        if all(name in values for name in BALANCES):
            balances = sum(values[name]["balance"] for name in BALANCES)
            versions = sum(values[name]["version"] for name in BALANCES)
            self.expect(client, balances == ACCOUNTS * BALANCE, f"at {ts} the balances sum up to {balances}")
            if counter is not None:
                self.expect(client, versions == 2 * counter, f"at {ts} versions {versions}, but counter {counter}")
        if audit is not None:
            self.expect(client, audit["balances"] == ACCOUNTS * BALANCE, f"at {ts} audit {audit}")
            self.expect(client, audit["versions"] == 2 * audit["counter"], f"at {ts} audit {audit}")
            if counter is not None:
                self.expect(client, audit["counter"] == counter, f"at {ts} audit {audit}, but counter {counter}")
        mine = values.get("mine")
        with self._lock:
            self.observations.append(
                Observation(
                    client, ts, None if counter is None else int(counter), None if mine is None else tuple(mine)
                )
            )

    def check(self, applied: dict[str, list[int | None]], counter: int, owners: dict[str, str]) -> None:
        """The rules that need the end of the story.

        :param applied: the rows of the ``applied`` table: sequence numbers by tag.
        :param owners: the client of each tag that was ever sent.
        """
        for tag, rows in applied.items():
            self.expect(owners.get(tag, "?"), len(rows) == 1, f"{tag} was applied {len(rows)} times: {rows}")
        for tag, (seq, _) in self.acknowledged.items():
            rows = applied.get(tag)
            self.expect(owners[tag], rows is not None, f"{tag} was acknowledged, but is lost")
            self.expect(
                owners[tag], rows is None or rows == [seq], f"{tag} was acknowledged as {seq}, stored as {rows}"
            )
        numbers = sorted(seq for rows in applied.values() for seq in rows if seq is not None)
        self.expect("bank", numbers == list(range(1, counter + 1)), f"{len(numbers)} transfers, but counter {counter}")
        self._check_times()
        self._check_own_writes(owners)

    def _check_times(self) -> None:
        """Each observed counter is the number of transfers that were committed at or before the Transition's timestamp."""
        pairs = sorted((ts, seq) for seq, ts in self.acknowledged.values() if seq is not None and ts is not None)
        times = [ts for ts, _ in pairs]
        numbers = [seq for _, seq in pairs]
        self.expect("bank", numbers == sorted(set(numbers)), "commit timestamps are not in the order of the commits")
        seen: dict[int, int] = {}
        for observation in self.observations:
            if observation.counter is None:
                continue
            place = bisect_right(times, observation.ts)
            before = numbers[place - 1] if place else 0
            after = numbers[place] if place < len(numbers) else None
            holds = before <= observation.counter and (after is None or observation.counter < after)
            text = f"at {observation.ts} it saw {observation.counter} transfers, but {before} were committed, {after} were not"
            self.expect(observation.client, holds, text)
            known = seen.setdefault(observation.ts, observation.counter)
            text = f"at {observation.ts} it saw {observation.counter} transfers, another client {known}"
            self.expect(observation.client, known == observation.counter, text)
        ordered = [seen[ts] for ts in sorted(seen)]
        self.expect("bank", ordered == sorted(ordered), "a later timestamp showed fewer transfers than an earlier one")

    def _check_own_writes(self, owners: dict[str, str]) -> None:
        """A client's list holds exactly those of its acknowledged tags that were committed at or before its timestamp."""
        of_client: dict[str, list[tuple[int, str]]] = {}
        for tag, (_, ts) in self.acknowledged.items():
            if ts is not None:
                of_client.setdefault(owners[tag], []).append((ts, tag))
        for observation in self.observations:
            if observation.mine is None:
                continue
            shown = set(observation.mine)
            for ts, tag in of_client.get(observation.client, ()):
                holds = (tag in shown) == (ts <= observation.ts)
                text = f"{tag}, committed at {ts}, is {'' if tag in shown else 'not '}shown at {observation.ts}"
                self.expect(observation.client, holds, text)
