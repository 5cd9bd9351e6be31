"""What a simple deploy makes of its request before it becomes a push (``docs/deploy_api.md``). The whole is in ``tests/e2e/test_deploy_api.py``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convex_backend.application.simple_deploy import read_sources
from convex_backend.application.word_map import word_map
from convex_backend.errors import BadRequest

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def refusal(tree: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(BadRequest) as caught:
        read_sources(tree)
    return caught.value.code, caught.value.message


def test_many_comments_at_the_top_are_read_once() -> None:
    """Whether a module wants Node is found in one pass over its first comments, however many there are."""
    many = "/* a */ // b\n" * 20_000
    assert len(read_sources({"functions": {"a.js": f"{many}export const a = 1;"}}).functions) == 1
    assert refusal({"functions": {"a.js": f"{many}'use node';"}})[1].startswith('a.js: "use node" modules cannot')


def test_paths_are_canonical_and_special_modules_are_found() -> None:
    """Paths may have or lack ``.js`` and may end in ``.ts``; schema and definition are not runtime modules."""
    sources = read_sources(
        {
            "functions": {
                "a": "1",
                "lib/b.js": "2",
                "c.ts": "3",
                "schema.ts": "4",
                "convex.config.ts": "5",
                "auth.config.ts": "6",
            },
            "message": "m",
        }
    )
    assert [(source.path, source.is_typescript) for source in sources.functions] == [
        ("a.js", False),
        ("lib/b.js", False),
        ("c.js", True),
        ("auth.config.js", True),
    ]
    assert sources.schema is not None
    assert (sources.schema.path, sources.schema.name) == ("schema.js", "schema.ts")
    assert sources.definition is not None
    assert sources.definition.text == "5"
    assert (sources.message, sources.warnings) == ("m", ())


def test_generated_files_are_left_out_with_a_warning() -> None:
    """Whoever sends the whole folder need not pick out what the server makes itself."""
    sources = read_sources({"functions": {"_generated/api.js": "x", "a.js": ""}, "what": 1})
    assert [source.path for source in sources.functions] == ["a.js"]
    assert sources.warnings == (
        "The member `what` is unknown and was ignored.",
        "_generated/api.js was ignored: the server makes _generated itself.",
    )


@pytest.mark.parametrize("as_text", [False, True])
def test_schema_as_json_becomes_a_module(as_text: bool) -> None:
    """The JSON that ``schema.js`` exports may be sent as a tree or as text; lists that are left out are empty."""
    tree = {"tables": [{"tableName": "t", "indexes": [{"indexDescriptor": "by_a", "fields": ["a"]}]}]}
    sources = read_sources({"functions": {}, "schema": json.dumps(tree) if as_text else tree})
    assert sources.schema is not None
    head, _, tail = sources.schema.text.partition("export default { export: () => ")
    assert head == ""
    exported = json.loads(json.loads(tail.removesuffix(" };\n")))
    assert exported["schemaValidation"] is True
    (table,) = exported["tables"]
    assert table["indexes"] == tree["tables"][0]["indexes"]
    assert (table["stagedVectorIndexes"], table["documentType"]) == ([], {"type": "any"})


def test_schema_as_source_stays_what_it_is() -> None:
    """Any other text is the source of a module."""
    sources = read_sources({"functions": {}, "schema": "export default 1;"})
    assert sources.schema is not None
    assert (sources.schema.path, sources.schema.text) == ("schema.js", "export default 1;")


@pytest.mark.parametrize(
    ("tree", "code", "message"),
    [
        ({}, "BadJsonBody", "`functions` must be an object"),
        ({"functions": []}, "BadJsonBody", "`functions` must be an object"),
        ({"functions": {}, "message": 1}, "BadJsonBody", "`message` must be a string"),
        ({"functions": {"a.js": 1}}, "InvalidModules", "a.js: the source of a module is a string"),
        ({"functions": {"a.tsx": ""}}, "InvalidModules", "a.tsx: modules are JavaScript (.js) or TypeScript"),
        ({"functions": {"ä.js": ""}}, "InvalidModules", "ä.js: modules are JavaScript"),
        ({"functions": {"a b.js": ""}}, "BadConvexModuleIdentifier", "a b.js: a b.js is not a valid path"),
        ({"functions": {"../a.js": ""}}, "BadConvexModuleIdentifier", "../a.js: ../a.js is not a valid path"),
        ({"functions": {"_deps/a.js": ""}}, "InvalidModules", "_deps/a.js: paths below _deps/"),
        ({"functions": {"a.js": '// x\n/* y */ "use node";'}}, "InvalidModules", 'a.js: "use node" modules cannot'),
        ({"functions": {"a.js": "", "a.ts": ""}}, "InvalidModules", "a.ts: a.js is the same module"),
        ({"functions": {"schema.js": ""}, "schema": "x"}, "InvalidSchema", "schema.js: the schema is given twice"),
        ({"functions": {}, "schema": 1}, "InvalidSchema", "schema: expected the JSON"),
        ({"functions": {}, "schema": "{no"}, "InvalidSchema", "schema: it begins like JSON but is none"),
    ],
)
def test_refused(tree: dict[str, Any], code: str, message: str) -> None:
    """A request that cannot be deployed is refused with the name of what is wrong, before anything runs."""
    found, text = refusal(tree)
    assert found == code
    assert text.startswith(message)


def decode(mappings: str) -> list[list[tuple[int, int, int]]]:
    """Segments (generated column, source line, source column) of each line of a source map."""
    lines: list[list[tuple[int, int, int]]] = []
    line = column = 0
    for text in mappings.split(";"):
        generated = 0
        segments = []
        for segment in text.split(",") if text else ():
            values, shift, value = [], 0, 0
            for character in segment:
                digit = _DIGITS.index(character)
                value |= (digit & 31) << shift
                shift += 5
                if not digit & 32:
                    values.append(-(value >> 1) if value & 1 else value >> 1)
                    shift = value = 0
            generated += values[0]
            assert values[1] == 0
            line += values[2]
            column += values[3]
            segments.append((generated, line, column))
        lines.append(segments)
    return lines


def test_map_has_the_words_of_each_line_counted_from_one() -> None:
    """A frame's line and column, looked up as if they counted from 0, give the line from 1 and the word's column from 0."""
    tree = json.loads(word_map("a.ts", "const a = f();\n\n  g(a)"))
    assert (tree["version"], tree["sources"]) == (3, ["a.ts"])
    assert decode(tree["mappings"]) == [
        [(0, 0, 0)],
        [(0, 1, 0), (6, 1, 6), (8, 1, 8), (10, 1, 10), (11, 1, 11)],
        [(0, 2, 0)],
        [(0, 3, 0), (2, 3, 2), (3, 3, 3), (4, 3, 4), (5, 3, 5)],
    ]


def test_map_counts_columns_as_javascript_does() -> None:
    """Characters outside the basic plane are two columns wide."""
    assert [segment[0] for segment in decode(json.loads(word_map("a", "'\U0001f600' b"))["mappings"])[1]] == [0, 5]


def test_map_of_a_long_line() -> None:
    """A megabyte of minified code that is not all ASCII is mapped in one pass."""
    line = "\U0001f600" + " a" * 250_000
    mappings = json.loads(word_map("a", line))["mappings"]
    assert mappings.startswith("AAAA;AACA,GAAG,EAAE,EAAE") and mappings.count(",EAAE") == 249_999


def test_map_of_lines_only() -> None:
    """Without words each line has one place, at its beginning."""
    assert decode(json.loads(word_map("a", "aa bb\n  cc\n", words=False))["mappings"]) == [
        [(0, line, 0)] for line in range(4)
    ]
