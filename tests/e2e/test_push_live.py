"""Which live queries a push runs again: those whose module, or what it imports, has changed (A8)."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

from tests.e2e.harness import ADMIN_KEY, Server, running

SHARED = 'export const word = () => "WORD";\n'
MODULE = """\
import { query } from "./_generated/server";
IMPORT
export const get = query({ args: {}, handler: async (ctx) => [VALUE, (await ctx.db.query("notes").collect()).length] });
"""
PLAIN = MODULE.replace("IMPORT", "").replace("VALUE", '"plain"')
ONE = MODULE.replace("IMPORT", 'import { word } from "./shared";').replace("VALUE", "`one ${word()}`")
TWO = MODULE.replace("IMPORT", 'import { word } from "./shared";').replace("VALUE", "`two ${word()}`")


def deploy(server: Server, **modules: str) -> None:
    """Push these modules; those whose text is the same are unchanged."""
    functions = {f"{name}.js": text for name, text in modules.items()}
    headers = {"Authorization": f"Convex {ADMIN_KEY}"}
    status, _, body = server.request("POST", "/api/deploy", {"functions": functions}, headers)
    assert status == 200, body


def reruns(server: Server) -> int:
    """How often subscribed queries were run again so far, once that is over."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.3:
        _, _, text = server.request("GET", "/metrics")
        found = re.search(rb"^convex_live_query_reruns_total (\S+)", text, re.M)
        assert found is not None
        if int(float(found[1])) != seen:
            seen, since = int(float(found[1])), time.monotonic()
        time.sleep(0.02)
    return seen


def test_a_push_runs_the_queries_of_changed_modules_again(tmp_path: Path) -> None:
    """A push that changes nothing runs none, one that changes a module that module's alone, one that changes what two import both of theirs;
    clients get the new results without a call of theirs."""
    from convex import ConvexClient

    shared = SHARED.replace("WORD", "old")
    with running(tmp_path) as server:
        deploy(server, plain=PLAIN, one=ONE, two=TWO, shared=shared)
        client = ConvexClient(server.url)
        plain, one, two = (client.subscribe(f"{name}:get", {}) for name in ("plain", "one", "two"))
        assert [next(plain), next(one), next(two)] == [["plain", 0], ["one old", 0], ["two old", 0]]
        counts = [reruns(server)]

        deploy(server, plain=PLAIN, one=ONE, two=TWO, shared=shared)
        counts.append(reruns(server))
        deploy(server, plain=PLAIN.replace('"plain"', '"other"'), one=ONE, two=TWO, shared=shared)
        assert ["other", 0] in itertools.islice(plain, 2)
        counts.append(reruns(server))
        deploy(
            server, plain=PLAIN.replace('"plain"', '"other"'), one=ONE, two=TWO, shared=SHARED.replace("WORD", "new")
        )
        # This client hands out a result with every transition, the same one again if nothing changed.
        assert ["one new", 0] in itertools.islice(one, 3)
        assert ["two new", 0] in itertools.islice(two, 3)
        counts.append(reruns(server))
        assert [late - early for early, late in itertools.pairwise(counts)] == [0, 1, 2]
