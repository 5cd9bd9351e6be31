"""Components from npm that keep data: aggregate (with triggers of convex-helpers), migrations, geospatial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.components.conftest import deployed, until
from tests.e2e.harness import Server, convex

pytestmark = pytest.mark.slow

AROUND = {"west": -74.1, "south": 40.7, "east": -73.9, "north": 40.9}
CENTRE = {"latitude": 40.78, "longitude": -73.97}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``data``, deployed."""
    with deployed(tmp_path_factory, "data") as server:
        yield server


def test_aggregate_of_a_table(data: Server) -> None:
    """Counts, sums, ranks, pages and batches of a table, over all and by namespace, follow its inserts, patches and deletions by triggers."""
    data.value("mutation", "leaderboard:add", {"player": "ann", "points": [10.0, 70.0, 90.0]})
    data.value("mutation", "leaderboard:add", {"player": "bob", "points": [20.0, 66.0, 70.0, 95.0]})
    assert data.value("query", "leaderboard:summary") == {
        "count": 7,
        "sum": 421,
        "high": 5,
        "median": 70,
        "rank": 2,
        "max": 95,
        "min": 10,
        "best": [95, 90, 70],
        "chosen": True,
        "ends": [30, 185],
    }
    assert data.value("query", "leaderboard:ofPlayer", {"player": "bob"}) == [4, 251, 95]
    data.value("mutation", "leaderboard:change", {"from": 95.0, "to": 5.0})
    data.value("mutation", "leaderboard:change", {"from": 10.0, "to": None})
    after = data.value("query", "leaderboard:summary")
    assert (after["count"], after["sum"], after["min"], after["best"]) == (6, 321, 5, [90, 70, 70])
    assert data.value("query", "leaderboard:ofPlayer", {"player": "bob"}) == [4, 161, 70]
    assert data.value("query", "leaderboard:ofPlayer", {"player": "nobody"}) == [0, 0, None]


def test_aggregate_without_a_table(data: Server) -> None:
    """A ``DirectAggregate`` is filled by an action, counts by prefix, grows beyond one node of its tree, and is cleared."""
    assert data.value("action", "leaderboard:direct", {"start": 0.0, "end": 40.0}) == 20
    assert data.value("query", "leaderboard:total") == [40, 380]
    data.value("mutation", "leaderboard:clear")
    assert data.value("query", "leaderboard:total") == [0, 0]


def test_migrations(data: Server) -> None:
    """Series run in batches in the background, over whole tables and ranges of an index, to completion in an action; failures are kept."""
    data.value("mutation", "migrations:seed", {"count": 35.0})
    data.value("mutation", "migrations:begin")
    done = [["migrations:countLetters", "success", 35], ["migrations:regroup", "success", 17]]
    until(lambda: data.value("query", "migrations:status"), lambda found: found == done)
    assert data.value("query", "migrations:state") == {"counted": 35, "old": 0, "new": 17}
    data.value("mutation", "migrations:seed", {"count": 5.0})
    assert data.value("action", "migrations:complete") == "success"
    assert data.value("query", "migrations:state") == {"counted": 35, "old": 0, "new": 19}
    data.value("mutation", "migrations:beginFailing")
    until(
        lambda: data.value("query", "migrations:status"),
        lambda found: ["migrations:failing", "failed", 0] in found,
    )


def test_migrations_from_the_cli(data: Server) -> None:
    """``convex run`` runs a migration, tries one without a change, and shows its status in the component."""
    data.value("mutation", "migrations:seed", {"count": 3.0})
    before = data.value("query", "migrations:state")
    assert before["old"] > 0
    tried = convex(data.app, data, "run", "migrations:regroup", '{"dryRun": true, "reset": true}', check=False)
    assert "DRY RUN" in tried
    assert data.value("query", "migrations:state") == before
    convex(data.app, data, "run", "migrations:run", '{"fn": "migrations:regroup", "reset": true}')
    until(lambda: data.value("query", "migrations:state")["old"], lambda left: left == 0)
    shown = convex(data.app, data, "run", "--component", "migrations", "lib:getStatus")
    assert '"name": "migrations:regroup"' in shown


def test_geospatial(data: Server) -> None:
    """Points are found in a rectangle, by filter and sort key and page by page, and by distance; removed ones are gone."""
    places = [("museum", 40.7813, -73.9737, 28.0), ("cafe", 40.79, -73.96, 5.0), ("abroad", 48.85, 2.35, 15.0)]
    for key, latitude, longitude, price in places:
        at = {"latitude": latitude, "longitude": longitude}
        kind = "cafe" if key == "cafe" else "museum"
        data.value("mutation", "places:add", {"key": key, "at": at, "kind": kind, "price": price})
    found: Any = data.value("query", "places:get", {"key": "cafe"})
    assert (found["coordinates"], found["sortKey"]) == ({"latitude": 40.79, "longitude": -73.96}, 5)
    within: dict[str, dict[str, Any]] = {
        "all": {},
        "by kind": {"kind": "museum"},
        "by sort key": {"below": 10.0},
        "by pages": {"limit": 1.0},
    }
    assert {
        name: data.value("query", "places:within", {"rectangle": AROUND, **more}) for name, more in within.items()
    } == {
        "all": ["cafe", "museum"],
        "by kind": ["museum"],
        "by sort key": ["cafe"],
        "by pages": ["cafe", "museum"],
    }
    near = {"point": CENTRE, "limit": 3.0}
    assert data.value("query", "places:nearest", near) == [["museum", 0], ["cafe", 1], ["abroad", 5831]]
    near |= {"maxDistance": 10000.0, "kind": "museum"}
    assert data.value("query", "places:nearest", near) == [["museum", 0]]
    assert data.value("mutation", "places:remove", {"key": "cafe"}) is True
    assert data.value("query", "places:get", {"key": "cafe"}) is None
    assert data.value("query", "places:within", {"rectangle": AROUND}) == ["museum"]
