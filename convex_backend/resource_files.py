"""Where the files of ``resources/`` are: SQL, the runner's JavaScript, the dashboard.

In a checkout they are beside the package; an installed package carries them as ``convex_backend.resources``.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent / "resources"
_INSTALLED = _PACKAGE / "resources"


def resource(*parts: str) -> Path:
    """:param parts: path below ``resources/``, for instance ``("sql", "0001_initial.sql")``.

    :returns: the file or folder in the checkout if it is one, else in the installed package.
    :raises FileNotFoundError: it is in neither.
    """
    # A site-packages folder may hold somebody else's "resources": only a folder beside our pyproject.toml is a checkout.
    roots = [_CHECKOUT, _INSTALLED] if (_PACKAGE.parent / "pyproject.toml").is_file() else [_INSTALLED]
    for root in roots:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"resource {'/'.join(parts)} is missing: not found under {' or '.join(map(str, roots))}")
