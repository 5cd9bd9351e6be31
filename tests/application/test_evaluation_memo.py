"""What is remembered of evaluations (``application/evaluation_memo.py``)."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from convex_backend.application.evaluation_memo import EvaluationMemo
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import module_text
from tests.application.push_support import FakeAnalyzer
from tests.database.documents import run


def text(path: str, **tree: Any) -> ModuleText:
    """A module that says itself what its evaluation gives."""
    return module_text(path, json.dumps(tree), None)


def spec(module: ModuleText, what: str = "schema", **changes: Any) -> AnalysisSpec:
    """The evaluation of *module*."""
    made = AnalysisSpec(what, module.path, {module.path: module.hash}, {"A": "1"}, b"seed", 5.0)
    return attrs.evolve(made, **changes)


def ask(memo: EvaluationMemo, *specs: AnalysisSpec, modules: tuple[ModuleText, ...] = ()) -> list[Any]:
    """One push's questions."""

    async def work() -> list[Any]:
        analysis = await memo.open_analysis(modules)
        try:
            return [await analysis.run(one) for one in specs]
        finally:
            await analysis.close()

    found: list[Any] = run(work())
    return found


def test_a_known_evaluation_needs_no_child() -> None:
    """The second time the same is asked, no child starts; who gets a result may change it."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool)
    schema = text("schema.js", value={"tables": []})
    [first] = ask(memo, spec(schema), modules=(schema,))
    first["tables"].append("spoilt")
    assert ask(memo, spec(schema), modules=(schema,)) == [{"tables": []}]
    assert len(pool.children) == 1
    assert pool.children[0].closed


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"A": "2"}},
        {"import_seed": b"other"},
        {"import_ms": 6.0},
        {"extra": b"{}"},
        {"allow_env": False},
        {"what": "app"},
    ],
)
def test_whatever_an_evaluation_depends_on_tells_it_apart(changes: dict[str, Any]) -> None:
    """Another variable, clock, seed or kind is another question."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool)
    schema = text("schema.js", value={"tables": []})
    ask(memo, spec(schema), modules=(schema,))
    ask(memo, spec(schema, **changes), modules=(schema,))
    assert len(pool.children) == 2


def test_another_text_is_another_question() -> None:
    """A schema with the same path and another text is evaluated."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool)
    old, new = text("schema.js", value=1), text("schema.js", value=2)
    assert ask(memo, spec(old), modules=(old,)) == [1]
    assert ask(memo, spec(new), modules=(new,)) == [2]


def test_modules_and_failures_are_asked_for_each_time() -> None:
    """Modules are analysed whenever they are asked for, and so is what failed."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool)
    module, bad = text("a.js"), text("schema.js", fail="bad")
    for _ in range(2):
        ask(memo, spec(module, "module"), modules=(module,))
        with pytest.raises(BadRequest, match="bad"):
            ask(memo, spec(bad), modules=(bad,))
    assert pool.log == ["module a.js", "schema schema.js"] * 2


def test_one_child_serves_all_that_is_new() -> None:
    """What is known is answered beside what is not, and modules that come later reach the child when it starts."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool)
    schema, module, later = text("schema.js", value=1), text("a.js"), text("later.js")
    ask(memo, spec(schema), modules=(schema,))

    async def work() -> None:
        analysis = await memo.open_analysis([schema, module])
        analysis.add_modules([later])
        assert await analysis.run(spec(schema)) == 1
        await analysis.run(spec(module, "module"))
        await analysis.run(spec(module, "module"))
        await analysis.close()

    run(work())
    assert pool.log == ["schema schema.js", "module a.js", "module a.js"]
    assert [child.imports for child in pool.children] == [[], ["later.js"]]


def test_it_is_bounded() -> None:
    """The results that nobody asked for for the longest time go; what is too large alone is not kept."""
    pool = FakeAnalyzer()
    memo = EvaluationMemo(pool, max_bytes=2500)
    texts = [text("schema.js", value=f"{number}{'x' * 600}") for number in range(3)]
    for one in (texts[0], texts[1], texts[0], texts[2], texts[0]):
        ask(memo, spec(one), modules=(one,))
    assert len(pool.children) == 3
    ask(memo, spec(texts[1]), modules=(texts[1],))
    assert len(pool.children) == 4
    large = text("schema.js", value="x" * 3000)
    for _ in range(2):
        ask(memo, spec(large), modules=(large,))
    assert len(pool.children) == 6
    ask(memo, spec(texts[1]), modules=(texts[1],))
    assert len(pool.children) == 6
