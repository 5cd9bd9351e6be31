"""Definitions of components for pushes over memory, as ``defineApp`` and ``defineComponent`` export them."""

from __future__ import annotations

import json
from typing import Any

from tests.application.push_support import module

STRING = {"type": "string"}


def variable(name: str, validator: Any = None, *, optional: bool = False) -> list[Any]:
    """A declared environment variable."""
    declared: dict[str, Any] = {"type": "value", "value": json.dumps(validator or STRING)}
    return [name, declared | ({"optional": True} if optional else {})]


def literals(*values: str) -> dict[str, Any]:
    """The validator of some strings."""
    return {"type": "union", "value": [{"type": "literal", "value": value} for value in values]}


def text(value: str) -> dict[str, str]:
    """A variable that is bound to a text."""
    return {"type": "value", "value": value}


def reference(name: str) -> dict[str, str]:
    """A variable that is bound to one of the parent."""
    return {"type": "envVar", "name": name}


def use(name: str, path: str, **env: dict[str, str]) -> dict[str, Any]:
    """One ``use(child, {name, env})``."""
    return {"name": name, "path": path, "args": [], "env": [[key, value] for key, value in env.items()]}


def app_config(*uses: dict[str, Any], mounts: dict[str, str] | None = None, env: Any = None, **more: Any) -> Any:
    """What a ``convex.config.js`` with ``defineApp`` exports."""
    return {
        "definitionType": {"type": "app"},
        "childComponents": list(uses),
        "httpMounts": {prefix: f"_reference/childComponent/{name}" for prefix, name in (mounts or {}).items()},
        "exports": {"type": "branch", "branch": []},
        **({} if env is None else {"envVars": list(env)}),
        **more,
    }


def component_config(name: str, *uses: dict[str, Any], **more: Any) -> Any:
    """Likewise with ``defineComponent``."""
    found = app_config(*uses, **more)
    return {**found, "name": name, "definitionType": {"type": "childComponent", "name": name, "args": []}}


def component(
    path: str, *modules: dict[str, Any], config: Any = None, schema: Any = None, dependencies: Any = (), **more: Any
) -> dict[str, Any]:
    """A component definition of a push."""
    return {
        "definitionPath": path,
        "definition": module("convex.config.js", value=config or component_config(path)),
        "dependencies": list(dependencies),
        "schema": schema,
        "functions": list(modules),
        "udfServerVersion": more.pop("version", "1.48.0"),
    }
