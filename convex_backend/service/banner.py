"""What the operator reads when the server is up: addresses, where the data is, and at the first start the way in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import attrs

from convex_backend import __version__

NO_DEMO = "not deployed: something is deployed already, and nothing was changed"


@attrs.frozen(slots=True)
class Facts:
    """What the banner tells.

    :param cloud: public URL of the API.
    :param site: public URL of HTTP actions.
    :param listening: where the sockets are, for instance ``0.0.0.0:3210``.
    :param admin_key: at the first start, else ``None``.
    :param admin_key_command: how to print a key.
    :param demo: what became of the demo, ``None`` if nobody asked for it.
    """

    cloud: str
    site: str
    listening: tuple[str, ...]
    database: str
    local_storage: str
    admin_key: str | None = attrs.field(repr=False)
    admin_key_command: str
    demo: str | None = None


def render(facts: Facts) -> str:
    """The banner, with a line end. The two ``.env.local`` lines stand at the margin, ready to be copied."""
    database = "in memory, gone when the server stops" if facts.database == ":memory:" else facts.database
    lines = [
        "",
        f"  convex-backend {__version__} is running.",
        "",
        f"    API           {facts.cloud}",
        f"    HTTP actions  {facts.site}",
        f"    Listening on  {', '.join(facts.listening)}",
        f"    Database      {database}",
        f"    Files, keys   {facts.local_storage}",
    ]
    if facts.demo is not None:
        lines.append(f"    Demo          {facts.demo}")
    lines.append("")
    if facts.admin_key is None:
        lines += [f"  To print an admin key:  {facts.admin_key_command}", ""]
        return "\n".join(lines) + "\n"
    lines += [
        "  Put these two lines into the file .env.local of your app:",
        "",
        f"CONVEX_SELF_HOSTED_URL={quote(facts.cloud)}",
        f"CONVEX_SELF_HOSTED_ADMIN_KEY={quote(facts.admin_key)}",
        "",
        "  Then, in your app:      npx convex dev",
        "",
        "  The key allows everything: keep it secret. It is not shown again.",
        f"  To print another one:   {facts.admin_key_command}",
        "",
    ]
    return "\n".join(lines) + "\n"


def quote(value: str) -> str:
    """*value* as the right side of a line in a ``.env`` file."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def admin_key_command(local_storage: Path, default_local_storage: Path) -> str:
    """The command that prints a key for the server with these credentials, fit to be pasted into a shell in the same directory."""
    script = Path(sys.argv[0]).absolute().with_name("convex-backend")
    if script.is_file():
        cwd = Path.cwd()
        program = str(script.relative_to(cwd) if script.is_relative_to(cwd) else script)
    else:
        program = "convex-backend"
    words = [program, "admin-key"]
    if local_storage != default_local_storage:
        words += ["--local-storage", str(local_storage)]
    return shlex.join(words)
