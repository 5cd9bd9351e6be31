"""The brute-force model: every commit is kept; each question replays them."""

from convex_backend.interfaces import Row


class Model:
    """Answers what the store must answer, from the list of commits alone."""

    def __init__(self):
        self.commits = []

    @property
    def last_ts(self):
        return self.commits[-1].ts if self.commits else 0

    def documents(self, ts):
        """(tablet, id) -> (ts, json) as of *ts*."""
        found = {}
        for commit in self.commits:
            if commit.ts > ts:
                break
            for write in commit.documents:
                if write.json is None:
                    found.pop((write.tablet, write.id), None)
                else:
                    found[write.tablet, write.id] = (commit.ts, write.json)
        return found

    def entries(self, ts):
        """(index, key) -> (tablet, id) as of *ts*. An entry that a backfill added counts from its document's timestamp."""
        intervals = {}
        for commit in self.commits:
            for write in sorted(commit.indexes, key=lambda write: write.added):
                spans = intervals.setdefault((write.index, write.key), [])
                if write.added:
                    start = commit.ts if write.ts is None else write.ts
                    spans.append([start, None, write.tablet, write.id])
                elif spans and spans[-1][1] is None:
                    spans[-1][1] = commit.ts
        return {
            name: (tablet, id)
            for name, spans in intervals.items()
            for start, end, tablet, id in spans
            if start <= ts and (end is None or ts < end)
        }

    def get(self, tablet, id, ts):
        found = self.documents(ts).get((tablet, id))
        return None if found is None else Row(id, id, *found)

    def scan_documents(self, tablet, lower, upper, reverse, limit, ts):
        rows = [Row(id, id, *version) for (where, id), version in self.documents(ts).items() if where == tablet]
        return _cut(rows, lower, upper, reverse, limit)

    def scan_index(self, index, lower, upper, reverse, limit, ts):
        documents = self.documents(ts)
        rows = [
            Row(key, id, *documents[tablet, id])
            for (where, key), (tablet, id) in self.entries(ts).items()
            if where == index
        ]
        return _cut(rows, lower, upper, reverse, limit)


def _cut(rows, lower, upper, reverse, limit):
    rows = [row for row in rows if row.key >= lower and (upper is None or row.key < upper)]
    return sorted(rows, key=lambda row: row.key, reverse=reverse)[:limit]
