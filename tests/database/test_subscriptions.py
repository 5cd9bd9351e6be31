"""Subscriptions: no gaps, once, and only what is durable."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.database.reads import ReadToken
from convex_backend.database.subscriptions import Subscription, SubscriptionManager
from tests.database.commit_support import Stack, change, doc_id, reads_of

INDEX = 10


def token_of(*points, intervals=()) -> ReadToken:
    return reads_of(*points, intervals=intervals).freeze()


class SubscriptionTests(SynchronousTestCase):
    """What a subscriber hears."""

    def setUp(self) -> None:
        self.stack = Stack(hold=True)
        self.committer = self.stack.committer
        self.manager = SubscriptionManager(self.committer, self.stack.registry)
        self.heard: list[int] = []

    def subscribe(self, token: ReadToken, since: int | None = None) -> Subscription:
        ts = self.committer.durable_ts if since is None else since
        return self.manager.subscribe(token, ts, self.heard.append)

    def test_only_when_durable_and_once(self) -> None:
        """A pending commit is not heard of; the durable one is, once, with its timestamp, and later ones are not."""
        subscription = self.subscribe(token_of((-1, doc_id(1))))
        first = self.stack.commit(change(1, b"1"))
        self.assertEqual(self.heard, [])
        self.stack.finish_write()
        self.assertEqual(self.heard, [first.value])
        self.assertFalse(subscription.active)
        self.assertEqual(subscription.invalid_ts, first.value)
        self.stack.commit(change(1, b"2", old=(first.value, b"1")))
        self.stack.finish_write()
        self.assertEqual(len(self.heard), 1)
        self.assertEqual(len(self.manager), 0)

    def test_the_first_of_a_group(self) -> None:
        """When a group touches the read set twice, the timestamp is that of the first commit."""
        self.stack.commit(change(9, b"1"))
        self.subscribe(token_of(intervals=[(INDEX, b"a", b"c")]))
        outcomes = [self.stack.commit(change(n, b"1", keys=((INDEX, None, b"a%d" % n),))) for n in (1, 2)]
        self.stack.finish_write()
        self.stack.finish_write()
        self.assertEqual(self.heard, [outcomes[0].value])

    def test_no_gap(self) -> None:
        """A commit between the read and the subscription is heard of at once, the first of several."""
        since = self.committer.durable_ts
        outcomes = [self.stack.commit(change(n, b"1", keys=((INDEX, None, b"b%d" % n),))) for n in (1, 2)]
        self.stack.finish_write()
        self.stack.finish_write()
        subscription = self.subscribe(token_of(intervals=[(INDEX, b"b", b"c")]), since)
        self.assertEqual(self.heard, [outcomes[0].value])
        self.assertFalse(subscription.active)

    def test_a_pending_commit_between(self) -> None:
        """A commit that is pending at the subscription is heard of when it is durable, not before."""
        since = self.committer.durable_ts
        outcome = self.stack.commit(change(1, b"1"))
        self.subscribe(token_of((-1, doc_id(1))), since)
        self.assertEqual(self.heard, [])
        self.stack.finish_write()
        self.assertEqual(self.heard, [outcome.value])

    def test_a_failed_commit_is_never_heard_of(self) -> None:
        """Nothing outside sees a commit whose group failed (A4, A5)."""
        self.subscribe(token_of((-1, doc_id(1))))
        self.stack.commit(change(1, b"1"))
        self.stack.fail_write()
        self.flushLoggedErrors(OSError)
        self.assertEqual(self.heard, [])
        outcome = self.stack.commit(change(1, b"1"))
        self.stack.finish_write()
        self.assertEqual(self.heard, [outcome.value])

    def test_older_than_the_log(self) -> None:
        """Reads older than the write log are invalid at once: nobody knows."""
        stack = Stack(log_max_keys=2)
        manager = SubscriptionManager(stack.committer, stack.registry)
        since = stack.committer.durable_ts
        for number in range(5):
            stack.commit(change(number, b"1"))
        subscription = manager.subscribe(token_of((-1, doc_id(99))), since, self.heard.append)
        self.assertEqual((self.heard, subscription.active), ([since + 1], False))

    def test_unsubscribe(self) -> None:
        """After it nothing is called and nothing is kept, also when another subscriber does it from its own call."""
        token = token_of((-1, doc_id(1)), intervals=[(INDEX, b"a", None)])
        gone = self.subscribe(token)
        gone.unsubscribe()
        gone.unsubscribe()
        later: list[Subscription] = []
        self.manager.subscribe(token, self.committer.durable_ts, lambda _: later[0].unsubscribe())
        later.append(self.subscribe(token))
        self.stack.commit(change(1, b"1"))
        self.stack.finish_write()
        self.assertEqual(self.heard, [])
        self.assertEqual((self.manager._points, self.manager._intervals, len(self.manager)), ({}, {}, 0))

    def test_equal_read_sets_share(self) -> None:
        """Equal tokens are registered once, and each subscriber is called."""
        for _ in range(3):
            self.subscribe(token_of((-1, doc_id(1))))
        self.assertEqual(self.stack.registry.get_sample_value("convex_database_watched_read_sets"), 1)
        self.assertEqual(self.stack.registry.get_sample_value("convex_database_subscriptions"), 3)
        self.stack.commit(change(1, b"1"))
        self.stack.finish_write()
        self.assertEqual(len(self.heard), 3)

    def test_a_failing_subscriber(self) -> None:
        """The others still hear."""

        def broken(ts: int) -> None:
            raise ValueError("subscriber")

        self.manager.subscribe(token_of((-1, doc_id(1))), self.committer.durable_ts, broken)
        self.subscribe(token_of((-1, doc_id(1))))
        self.stack.commit(change(1, b"1"))
        self.stack.finish_write()
        self.assertEqual(len(self.heard), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_subscribing_again_from_the_call(self) -> None:
        """A subscriber may read again and subscribe from inside its call; it hears of the next commit, not of this one."""

        def again(ts: int) -> None:
            self.heard.append(ts)
            self.manager.subscribe(token_of((-1, doc_id(1))), self.committer.durable_ts, self.heard.append)

        self.manager.subscribe(token_of((-1, doc_id(1))), self.committer.durable_ts, again)
        first = self.stack.commit(change(1, b"1"))
        self.stack.finish_write()
        second = self.stack.commit(change(1, b"2", old=(first.value, b"1")))
        self.stack.finish_write()
        self.assertEqual(self.heard, [first.value, second.value])


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
tokens = st.builds(
    lambda points, spans: token_of(*((INDEX, p) for p in points), intervals=[(INDEX, *span) for span in spans]),
    st.lists(keys, max_size=2),
    st.lists(st.tuples(keys, st.none() | keys), max_size=2),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("scwu"), tokens, st.sets(keys, min_size=1, max_size=2), st.integers(0, 5)),
        max_size=30,
    )
)
def test_every_subscriber_hears_of_the_first_commit_that_touches_it(steps) -> None:
    """Whenever it subscribes, with reads of whatever durable moment: it hears exactly the first durable commit after its read that touches
    its read set."""
    stack = Stack(hold=True)
    committer = stack.committer
    manager = SubscriptionManager(committer, stack.registry)
    durable = [committer.durable_ts]
    log: list[tuple[int, set[bytes]]] = []
    watchers: list[tuple[ReadToken, int, list[int], Subscription]] = []
    number = 0
    for step, token, written, pick in steps:
        if step == "s":
            since, heard = durable[-1 - pick % len(durable)], []
            watchers.append((token, since, heard, manager.subscribe(token, since, heard.append)))
        elif step == "c":
            number += 1
            stack.commit(change(number, b"x", keys=tuple((INDEX, None, key) for key in written)))
            log.append((committer.pending_ts, written))
        elif step == "w" and stack.held:
            stack.finish_write()
            durable.append(committer.durable_ts)
        elif step == "u" and watchers:
            watchers.pop(pick % len(watchers))[3].unsubscribe()
        for token, since, heard, subscription in watchers:
            hits = [
                ts
                for ts, written in log
                if since < ts <= committer.durable_ts and any(token.overlaps(INDEX, key) for key in written)
            ]
            assert heard == hits[:1]
            assert subscription.active == (not hits)
