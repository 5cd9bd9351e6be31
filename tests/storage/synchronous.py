"""A reactor and a thread pool that do everything at once in the caller's thread: adbapi without threads."""

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class SynchronousReactor:
    """What adbapi asks of a reactor."""

    def callWhenRunning(self, function, *args, **kwargs):
        function(*args, **kwargs)

    def callFromThread(self, function, *args, **kwargs):
        function(*args, **kwargs)

    def addSystemEventTrigger(self, phase, event, function, *args, **kwargs):
        return (phase, event, function)

    def removeSystemEventTrigger(self, trigger):
        return None


class SynchronousThreadPool:
    """A thread pool without threads."""

    def __init__(self, low, high):
        self.running = False

    def start(self):
        self.running = True

    def stop(self):
        self.running = False

    def callInThreadWithCallback(self, on_result, function, *args, **kwargs):
        assert self.running, "work was given to a stopped pool"
        try:
            result = function(*args, **kwargs)
        except BaseException:
            on_result(False, Failure())
        else:
            on_result(True, result)


def result_of(deferred: Deferred):
    """The result of a Deferred that has fired; raises its failure."""
    outcome = []
    deferred.addBoth(outcome.append)
    assert outcome, "the Deferred has not fired"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]
