"""Web-platform globals: each file of ``globals/`` holds the assertions for one group and runs inside a context like a user's code."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .harness import DIST, NODE

HERE = Path(__file__).parent / "globals"
GROUPS = sorted(path.stem for path in HERE.glob("*.js"))


@functools.cache
def manifest() -> dict[str, Any]:
    """What the build says about groups and their globals."""
    content: dict[str, Any] = json.loads((DIST / "globals.json").read_text())
    return content


def run_cases(file: Path, kind: str = "action", phase: str = "run") -> dict[str, Any]:
    """Run assertions in a fresh context."""
    done = subprocess.run(
        [NODE, HERE / "harness.mjs", DIST, file, kind, phase],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "TZ": "UTC"},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def run_snippet(tmp_path: Path, code: str, kind: str = "action", phase: str = "run") -> dict[str, Any]:
    """Run one case whose body is ``code``."""
    file = tmp_path / "case.js"
    file.write_text(f"test('case', async () => {{ {code} }});")
    return run_cases(file, kind, phase)


def failures(report: dict[str, Any]) -> list[str]:
    """The cases that failed, with their errors."""
    return [f"{case['name']}: {case['error']}" for case in report["results"] if case["error"] is not None]


@pytest.mark.parametrize("group", GROUPS)
def test_group_behaves_by_its_standard(group: str) -> None:
    """Every assertion about the group holds, and nothing is left rejected without a handler."""
    report = run_cases(HERE / f"{group}.js")
    assert report["results"]
    assert failures(report) == []
    assert report["unhandled"] == []


def test_every_group_has_assertions() -> None:
    """A new group cannot be added without a file of assertions; tables of other groups are covered by theirs."""
    assert set(manifest()["groups"]) - {"idna", "legacy_encoding", "multibyte"} == set(GROUPS)


def test_globals_are_loaded_on_first_touch(tmp_path: Path) -> None:
    """A context that touches one global evaluates that group and what it needs, nothing else."""
    assert run_snippet(tmp_path, "1 + 1;")["loaded"] == []
    assert run_snippet(tmp_path, "btoa('x');")["loaded"] == ["base64"]
    assert run_snippet(tmp_path, "new Headers();")["loaded"] == ["headers"]
    assert run_snippet(tmp_path, "new URL('http://plain.example/');")["loaded"] == ["encoding", "url"]
    assert run_snippet(tmp_path, "new Response('text');")["loaded"] == ["encoding", "headers", "fetch"]


def test_user_code_cannot_break_other_groups(tmp_path: Path) -> None:
    """Groups reach one another directly: what user code puts on the global object does not matter to them."""
    code = """
      globalThis.TextEncoder = null; globalThis.TextDecoder = null; globalThis.URL = 1; globalThis.DOMException = undefined;
      globalThis.ReadableStream = undefined; globalThis.Headers = null;
      assert.equal(await new Response('é').text(), 'é');
      assert.throws(() => atob('!'), 'InvalidCharacterError');
      assert.equal((await new Response('x').body.getReader().read()).value[0], 120);
    """
    assert failures(run_snippet(tmp_path, code)) == []


def test_patched_builtins_never_see_the_bridge(tmp_path: Path) -> None:
    """User code that replaces every method of the builtins, before any group is loaded, gets no hold of the bridge or of ``use``."""
    code = """
      const found = [];
      let busy = false;
      const look = (where, values) => {
        if (busy) return;
        busy = true;
        try {
          for (let i = 0; i < values.length; i++) {
            const value = values[i];
            if (typeof value === 'object' && value !== null && 'hostOp' in value) found[found.length] = where;
            if (typeof value === 'function' && (value.name === 'use' || value.name === 'hostOp')) found[found.length] = where;
          }
        } finally { busy = false; }
      };
      const patched = [Object, Reflect, JSON, Array, Array.prototype, Object.prototype, Function.prototype, String.prototype, Promise,
        Promise.prototype, Map.prototype, Set.prototype, WeakMap.prototype, RegExp.prototype, Uint8Array.prototype.__proto__,
        ArrayBuffer.prototype, Error, Symbol, Number, Math, Object.getPrototypeOf(async function* () {}).prototype];
      const originals = [];
      const { apply, ownKeys, getOwnPropertyDescriptor, defineProperty, construct } = Reflect;
      for (const target of patched) {
        for (const key of ownKeys(target)) {
          const descriptor = getOwnPropertyDescriptor(target, key);
          if (typeof descriptor.value !== 'function' || !descriptor.configurable || key === 'constructor') continue;
          const original = descriptor.value;
          originals.push([target, key, descriptor]);
          const where = String(key);
          const spy = function () {
            look(where, arguments);
            const result = new.target ? construct(original, arguments) : apply(original, this, arguments);
            look(where, [this, result]);
            return result;
          };
          spy.prototype = original.prototype;
          defineProperty(target, key, { ...descriptor, value: spy });
        }
      }
      try {
        const body = await new Response('x').text();
        new Request('http://h/', { method: 'POST', body: new URLSearchParams({ a: 'b' }) });
        await crypto.subtle.digest('SHA-256', new Uint8Array(1));
        crypto.randomUUID();
        await fetch(host.base + '/echo', { method: 'POST', body: new Blob(['b']) }).then((r) => r.json());
        const controller = new AbortController(); controller.abort();
        AbortSignal.timeout(1);
        structuredClone({ a: [new Date(0)] });
        new AsyncLocalStorage().run(1, () => new AsyncResource('x'));
        performance.mark('x'); performance.measure('y');
        new TextDecoder('latin1').decode(new TextEncoder().encode('é'));
        for await (const chunk of new Blob(['x']).stream()) chunk;
        const form = new FormData(); form.append('f', new File(['x'], 'n')); await new Response(form).formData();
        atob(btoa('x')); new URL('http://é.example/?q'); new Headers({ a: 'b' }).forEach(() => 1);
        try { new URL('http://h/').host = 'x'; } catch {}
        host.inspect({ a: new Map() });
      } finally {
        for (const [target, key, descriptor] of originals) defineProperty(target, key, descriptor);
      }
      assert.same(found, []);
      assert(originals.length > 200);
    """
    assert failures(run_snippet(tmp_path, code)) == []


def test_globals_can_be_replaced(tmp_path: Path) -> None:
    """An assignment to a global that nobody touched yet just replaces it, as polyfills do."""
    code = (
        "globalThis.fetch = () => 7; assert.equal(fetch(), 7); const before = Headers; assert.equal(Headers, before);"
    )
    report = run_snippet(tmp_path, code)
    assert failures(report) == []
    assert "fetch" not in report["loaded"]


def test_listener_errors_are_unhandled_rejections(tmp_path: Path) -> None:
    """An exception in a listener does not reach the dispatcher; it arrives as an unhandled rejection."""
    code = """
      const target = new EventTarget();
      target.addEventListener('x', () => { throw new Error('from a listener'); });
      assert.equal(target.dispatchEvent(new Event('x')), true);
    """
    report = run_snippet(tmp_path, code)
    assert failures(report) == []
    assert report["unhandled"] == ["from a listener"]


def differences(seed: int, count: int) -> list[dict[str, str]]:
    """Where the globals and Node's own disagree on generated inputs."""
    done = subprocess.run(
        [NODE, HERE / "differential.mjs", DIST, str(seed), str(count)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_generated_inputs_agree_with_node() -> None:
    """URL, URLSearchParams, the text codecs, base64 and Headers give what Node's own give."""
    assert differences(seed=20261124, count=1500) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_generated_inputs_agree_with_node(seed: int) -> None:
    """The same over many more inputs."""
    assert differences(seed, count=20_000) == []
