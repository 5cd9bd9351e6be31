"""Random interleavings of a client, its functions, commits, a stalling network and time: the order rules hold in all of them."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from convex_backend.application.types import Identity, LiveUpdate
from convex_backend.sync.messages import decode_ts
from tests.sync.support import (
    ADMIN_KEY,
    T0,
    FakeLiveClient,
    Server,
    action,
    add,
    authenticate,
    connect,
    failure,
    modify,
    mutation,
    result,
    success,
)


class ModelLiveClient(FakeLiveClient):
    """Live queries whose every result names the snapshot and the identity that it was taken at."""

    held = False

    def set_identity(self, identity: Identity) -> None:
        super().set_identity(identity)
        self.fresh = dict.fromkeys(self.queries, result())

    def take(self, at_least: int) -> LiveUpdate | None:
        assert not self.closed
        if self.held:
            return None
        self.ts = max(self.ts, at_least)
        value = orjson.dumps({"ts": self.ts, "identity": self.identity.key})
        changed, self.fresh = tuple((query_id, result(value)) for query_id in sorted(self.fresh)), {}
        return LiveUpdate(self.ts, changed)


class Interleavings(RuleBasedStateMachine):
    """The client's view is checked as each message comes; what must come in the end is checked in :meth:`teardown`."""

    @initialize(chunked=st.booleans())
    def open(self, chunked: bool) -> None:
        self.server = Server()
        real_connect = self.server.application.live.connect

        def connect_model(identity: Identity, on_ready: Any) -> Any:
            client = real_connect(identity, on_ready)
            model = ModelLiveClient(identity, on_ready)
            self.server.application.live.clients[-1] = model
            assert client.queries == {}
            return model

        self.server.application.live.connect = connect_model  # type: ignore[method-assign]
        self.socket = self.server.open("/api/1.48.0/sync" if chunked else "/api/sync")
        self.live: Any = self.socket.live
        self.version = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
        self.query_set = 0
        self.next_query = 0
        self.wanted: set[int] = set()
        self.shown: dict[int, Any] = {}
        self.gone: set[int] = set()
        self.identities = ["anonymous"]
        self.asked = 0
        self.commit_ts = T0
        self.next_request = 0
        self.mutations: list[int] = []
        self.actions: set[int] = set()
        self.answered: list[int] = []
        self.unsettled: list[int] = []
        self.socket.send(connect(clientTs=0))

    # -- the client -----------------------------------------------------------------------------------------------------

    @rule(adds=st.integers(0, 2), removes=st.integers(0, 2))
    def change_query_set(self, adds: int, removes: int) -> None:
        """Add and remove queries in one message, possibly none."""
        removed = sorted(self.wanted)[:removes]
        added = list(range(self.next_query, self.next_query + adds))
        self.next_query += adds
        self.wanted = self.wanted - set(removed) | set(added)
        changes = [add(query_id) for query_id in added] + [{"type": "Remove", "queryId": number} for number in removed]
        self.socket.send(modify(self.query_set, *changes))
        self.query_set += 1

    @rule(kind=st.sampled_from(["None", "Admin", "User"]))
    def authenticate(self, kind: str) -> None:
        """Log in or out; a user's token is verified later."""
        value = {"None": None, "Admin": ADMIN_KEY, "User": "a.b.c"}[kind]
        self.socket.send(authenticate(self.asked, kind, value))
        self.asked += 1
        self.identities.append({"None": "anonymous", "Admin": "admin", "User": "user"}[kind])

    @rule()
    def call_mutation(self) -> None:
        """Ask for a mutation."""
        self.socket.send(mutation(self.next_request))
        self.mutations.append(self.next_request)
        self.next_request += 1

    @rule()
    def call_action(self) -> None:
        """Ask for an action."""
        self.socket.send(action(self.next_request))
        self.actions.add(self.next_request)
        self.next_request += 1

    # -- the server -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.server.application.tokens)
    @rule()
    def verify(self) -> None:
        """The token is found good."""
        _, waiter = self.server.application.tokens.pop(0)
        waiter.callback(Identity("user"))

    @rule(succeed=st.booleans())
    def end_mutation(self, succeed: bool) -> None:
        """The running mutation ends; there is at most one (31)."""
        running = [call for call in self.server.application.mutations if not call.answer.called]
        assert len(running) <= 1
        if running:
            self.commit_ts += 10
            running[0].answer.callback(success(ts=self.commit_ts) if succeed else failure("no", b'"d"'))

    @rule(data=st.data())
    def end_action(self, data: st.DataObject) -> None:
        """Any of the running actions ends (37)."""
        running = [call for call in self.server.application.actions if not call.answer.called]
        if running:
            data.draw(st.sampled_from(running)).answer.callback(success())

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """A commit touches some queries (24)."""
        self.commit_ts += 10
        self.live.ts = max(self.live.ts, self.commit_ts)
        for query_id in self.live.queries:
            if data.draw(st.booleans()):
                self.live.fresh[query_id] = result()
        self.live.on_ready()

    @rule(held=st.booleans())
    def evaluate(self, held: bool) -> None:
        """Evaluation begins to take long, or ends."""
        self.live.held = held
        if not held:
            self.live.on_ready()

    @rule(room=st.sampled_from([0, 1, 100, 1 << 40]))
    def network(self, room: int) -> None:
        """The peer reads nothing, a little, or all."""
        self.socket.transport.room = room

    @precondition(lambda self: self.server.clock.seconds() < 45)
    @rule()
    def time(self) -> None:
        """A while passes, less in all than a mutation may take."""
        self.server.pass_seconds(7)

    # -- what the client sees ---------------------------------------------------------------------------------------------

    @invariant()
    def read(self) -> None:
        """Every message obeys the rules at the time it comes."""
        if not hasattr(self, "socket"):
            return
        for message in self.socket.read():
            match message["type"]:
                case "Transition":
                    self.check_transition(message)
                case "MutationResponse":
                    self.mutations.remove(message["requestId"])
                    assert not self.answered or message["requestId"] > self.answered[-1], "31: in order, once each"
                    self.answered.append(message["requestId"])
                    self.unsettled.append(decode_ts(message["ts"]) if message["success"] else 0)
                case "ActionResponse":
                    self.actions.remove(message["requestId"])
                    self.unsettled.append(0)
                case other:
                    assert other == "Ping"
        unsent = len(bytes(self.socket.transport.dataBuffer)) + self.socket.transport._tempDataLen
        if unsent:
            assert self.socket.protocol._unsent_transitions <= 2, "30"

    def check_transition(self, message: dict[str, Any]) -> None:
        """Checklist 19 to 23, 25, 32, 33, 42."""
        start, end = message["startVersion"], message["endVersion"]
        assert start == self.version, "19"
        ts = decode_ts(end["ts"])
        assert start["querySet"] <= end["querySet"] <= self.query_set, "20"
        assert start["identity"] <= end["identity"] <= self.asked, "20"
        assert decode_ts(start["ts"]) <= ts, "20"
        self.version = end
        ids = [item["queryId"] for item in message["modifications"]]
        assert ids == sorted(set(ids)), "25"
        for item in message["modifications"]:
            if item["type"] == "QueryRemoved":
                self.shown.pop(item["queryId"], None)
                assert item["queryId"] not in self.gone, "a Remove is acknowledged once"
                self.gone.add(item["queryId"])
            else:
                self.shown[item["queryId"]] = item["value"]
                identity = self.identities[end["identity"]]
                assert item["value"] == {"ts": ts, "identity": identity}, "22"
        if end["identity"] > start["identity"]:
            assert {value["identity"] for value in self.shown.values()} <= {self.identities[end["identity"]]}, "45"
        self.unsettled = [owed for owed in self.unsettled if owed > ts]

    def teardown(self) -> None:
        """21, 31, 32, 33, 42: when everything has ended and all is read, everything is answered and announced."""
        if not hasattr(self, "socket"):
            return
        self.network(1 << 40)
        if self.live.held:
            self.evaluate(False)
        for _ in range(1000):
            self.read()
            while self.server.application.tokens:
                self.verify()
            running = [
                call
                for call in self.server.application.mutations + self.server.application.actions
                if not call.answer.called
            ]
            if not running:
                break
            running[0].answer.callback(success(ts=self.commit_ts))
        self.server.pass_seconds(1)
        self.read()
        assert not self.mutations and not self.actions, "31"
        assert not self.unsettled, "32, 33"
        assert self.version["querySet"] == self.query_set, "21"
        assert self.version["identity"] == self.asked, "42"
        assert set(self.shown) == self.wanted, "21"
        assert self.gone == set(range(self.next_query)) - self.wanted, "21"


Interleavings.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestInterleavings = Interleavings.TestCase
