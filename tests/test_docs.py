"""Documentation and code say the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from convex_backend.service.configuration import OPTIONS
from tests.test_layers import LAYERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.rst").read_text("utf-8")
OPERATING = (ROOT / "docs" / "operating.md").read_text("utf-8")


def option_rows() -> list[tuple[str, str, str]]:
    """Option, variable and default of each row of the README's table."""
    table = README.split(".. options-begin")[1].split(".. options-end")[0]
    border, *lines = [line for line in table.splitlines() if line.strip()]
    columns = [match.span() for match in re.finditer("=+", border)]
    rows = [
        tuple(line[begin:end].strip().strip("`") for begin, end in columns) for line in lines if line.startswith("``--")
    ]
    return [(row[0], row[1], row[2]) for row in rows]


def test_readme_table_has_every_option_with_variable_and_default() -> None:
    """The table lists exactly the options of the command line, in their order."""
    assert option_rows() == [(f"--{option.name}", option.environment or "", option.default) for option in OPTIONS]


def test_operating_guide_describes_every_option_and_variable() -> None:
    """The operator's guide has a word on each option."""
    missing = [option.name for option in OPTIONS if f"`--{option.name}`" not in OPERATING]
    missing += [option.environment for option in OPTIONS if option.environment and option.environment not in OPERATING]
    assert missing == []


def test_readme_names_every_layer() -> None:
    """Each room of the layer test has its place in the README's layer table."""
    table = README.split("Layers\n======")[1]
    names = [name.removeprefix("convex_backend.").rpartition(".")[2] for name in LAYERS if name != "convex_backend"]
    # The small files of layer 0 stand for each other.
    small = {"deferreds", "resource_files"}
    assert [name for name in names if name not in small and name not in table] == []


def test_readme_lists_every_page() -> None:
    """The index of the documentation has each page of ``docs``."""
    index = README.split("Documentation\n======")[1].split("Layers\n======")[0]
    assert [path.name for path in sorted(ROOT.glob("docs/*.md")) if f"<docs/{path.name}>" not in index] == []


def test_commands_of_the_readme_are_those_of_ci() -> None:
    """The two commands are shell words that CI runs too: what is documented is what is tried."""
    commands = [line.strip() for line in README.splitlines() if line.strip().startswith("python3 -m venv")]
    assert len(commands) == 2
    for command in commands:
        assert shlex.split(command)
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "README.rst" in ci
    assert "twistd -n convex-backend --port 3210" in commands[0]
    assert commands[1].endswith("pytest")


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.rst"], ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    """A relative link in the documentation names a file that exists."""
    text = path.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"`[^`<]+<([^>:#]+)>`_", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []
