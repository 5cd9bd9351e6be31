"""The demo's page and files (``web/demo.py``)."""

from __future__ import annotations

import re

import pytest

from convex_backend.service.demo_files import read_demo
from tests.web.support import Bench

FILES = {
    "/demo": ("", "text/html; charset=utf-8"),
    "/demo/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/demo/convex.js": ("convex.js", "text/javascript; charset=utf-8"),
    "/demo/style.css": ("style.css", "text/css; charset=utf-8"),
}


@pytest.mark.parametrize("path", FILES)
def test_served_when_there_is_a_demo(path: str) -> None:
    """Each file has its type and a policy under which nothing but our own files runs."""
    bench = Bench()
    name, content_type = FILES[path]
    bench.application.demo.pages = {name: b"content"}
    answer = bench.ask("GET", path)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"content", content_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", FILES)
def test_not_served_without_a_demo(path: str) -> None:
    """Without a demo the answer says how to get one."""
    answer = Bench().ask("GET", path)
    assert answer.error == (404, "DemoNotRunning")
    assert "--demo" in answer.json["message"]


def test_the_page_needs_nothing_else() -> None:
    """The page names no other host and has no inline script or style, which its policy would not allow; it has all files that it names."""
    files = read_demo()
    assert set(files.pages) == {name for name, _ in FILES.values()}
    html = files.pages[""].decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=|javascript:", html)
    assert {path.partition("?")[0] for path in re.findall(r'(?:href|src)="(/[^"]*)"', html)} <= set(FILES)
    for name in ("", "page.js", "style.css"):
        assert not re.search(rb"https?://|//[a-z]+\.[a-z]", files.pages[name]), name
    assert set(files.functions) == {"messages.js", "schema.js"}
