# ruff: noqa: E501 - JavaScript texts
"""Statements 5, 6 and 8 to 10 of the checklist of ``runtime.md`` section 12: what is read out of exports at push time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import Child
from tests.runner.samples import REGISTER
from tests.runner.test_analysis import analyze

FUNCTIONS = """
const f = (flags) => Object.assign(() => {}, flags);
const object = '{"type":"object","value":{"n":{"fieldType":{"type":"number"},"optional":false}}}';
export const old = f({ isQuery: true, isPublic: true });
export const full = f({ isMutation: true, isPublic: true, exportArgs: () => object, exportReturns: () => '{"type":"null"}' });
export const open = f({ isAction: true, isInternal: true, exportArgs: () => '{"type":"any"}', exportReturns: () => "null" });
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        one.add_module("register.js", REGISTER)
        yield one


def test_presence_of_the_flags_classifies_exports(child: Child) -> None:
    """Statement 5: a property that is there counts whatever its value; two kinds, or public and internal, make an export ambiguous: skipped."""
    source = """
const f = (flags) => Object.assign(() => {}, flags);
export const a = f({ isQuery: undefined, isPublic: null }), b = f({ isQuery: true, isAction: true }), c = f({ isMutation: true, isPublic: true, isInternal: true });
export const d = f({ isMutation: true, isInternal: true }), e = 5, g = null, h = () => {};
"""
    found = analyze(child, "module", "x.js", source)["functions"]
    assert {one["name"]: (one["udfType"], one["visibility"]) for one in found} == {
        "a": ("Query", {"kind": "public"}),
        "d": ("Mutation", {"kind": "internal"}),
    }


def test_validators_are_asked_for_by_methods(child: Child) -> None:
    """Statement 6: without ``exportArgs`` arguments are not validated; the text ``null`` of ``exportReturns`` is no validator."""
    found = {one["name"]: one for one in analyze(child, "module", "x.js", FUNCTIONS)["functions"]}
    assert (found["old"]["args"], found["old"]["returns"]) == (None, None)
    assert json.loads(found["full"]["args"])["value"]["n"]["fieldType"] == {"type": "number"}
    assert json.loads(found["full"]["returns"]) == {"type": "null"}
    assert json.loads(found["open"]["args"]) == {"type": "any"}
    assert found["open"]["returns"] in (None, "null")


@pytest.mark.parametrize(
    ("schedule", "stored"),
    [
        ("{type:'hourly'}", {"type": "hourly"}),
        ("{type:'daily',hourUTC:4}", {"type": "daily", "hourUTC": 4}),
        ("{type:'weekly',dayOfWeek:'sunday',hourUTC:4}", {"type": "weekly", "dayOfWeek": 0, "hourUTC": 4}),
        ("{type:'monthly',day:31,hourUTC:4}", {"type": "monthly", "day": 31, "hourUTC": 4}),
    ],
)
def test_cron_jobs_without_a_minute(child: Child, schedule: str, stored: dict[str, Any]) -> None:
    """Statement 8: ``minuteUTC`` may be absent, and the arguments come as an array of one."""
    source = f"export default {{ isCrons: true, export: () => JSON.stringify({{ job: {{ name: 'a:b', args: [{{n: 1}}], schedule: {schedule} }} }}) }};"
    [spec] = analyze(child, "module", "crons.js", source)["cronSpecs"]
    minute = spec["cronSchedule"].pop("minuteUTC")
    assert 0 <= minute < 60
    if stored.get("type") == "weekly":
        # A week begins on Monday or Sunday; what is stored is a number.
        stored = {**stored, "dayOfWeek": spec["cronSchedule"]["dayOfWeek"]}
        assert stored["dayOfWeek"] in (0, 7)
    assert spec["cronSchedule"] == stored
    assert spec["args"] == [{"n": 1}]


def test_a_schema_with_staged_indexes_and_keys_from_the_future(child: Child) -> None:
    """Statement 9: staged lists are handed on, and keys that nobody knows do no harm."""
    table = {
        "tableName": "t",
        "indexes": [],
        "stagedDbIndexes": [{"indexDescriptor": "by_a", "fields": ["a"]}],
        "searchIndexes": [],
        "stagedSearchIndexes": [{"indexDescriptor": "s", "searchField": "a", "filterFields": []}],
        "vectorIndexes": [],
        "stagedVectorIndexes": [{"indexDescriptor": "v", "vectorField": "w", "dimensions": 3, "filterFields": []}],
        "documentType": {"type": "any"},
        "somethingNew": [1],
    }
    text = json.dumps({"tables": [table], "schemaValidation": True, "evenNewer": {}})
    source = f"export default {{ isSchema: true, export: () => {json.dumps(text)} }};"
    found = analyze(child, "schema", "schema.js", source)
    assert found["tables"][0]["stagedDbIndexes"] == table["stagedDbIndexes"]
    assert found["tables"][0]["stagedVectorIndexes"] == table["stagedVectorIndexes"]


@pytest.mark.parametrize("kind", ["app", "childComponent"])
def test_a_definition_exports_an_object(child: Child, kind: str) -> None:
    """Statement 10: ``export()`` of ``convex.config`` gives an object, not a text. (That definitions import each other as modules below
    ``_componentDeps`` is tested in ``tests/application/test_push_child.py``.)"""
    definition = (
        {"type": "app"} if kind == "app" else {"type": kind, "name": "counter", "args": [["n", {"type": "optional"}]]}
    )
    tree = {"name": "counter", "definitionType": definition, "childComponents": [], "httpMounts": {}, "exports": []}
    source = f"export default {{ export: () => ({json.dumps({**tree, 'new': 1})}) }};"
    found = analyze(child, "app", "convex.config.js", source, component="", dependencies=[])
    assert found["definitionType"] == definition
