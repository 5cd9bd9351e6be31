"""Evaluating what was pushed: definition, auth config, schema and modules, in a child of its own.

Modules whose whole closure is deployed already keep the analysis that they have, unless their evaluation looked at something that may differ now.
Source: ``push.md`` sections 5 to 7, ``runtime.md`` sections 1.5 to 1.10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
import orjson

from convex_backend.application.cron_schedule import parse_schedule
from convex_backend.application.push_request import (
    AUTH_CONFIG,
    ISOLATE,
    PushedModule,
    PushRequest,
    components_unavailable,
)
from convex_backend.application.push_store import StoredModule, UdfConfig
from convex_backend.errors import BadRequest, ConvexError
from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.module_text import ModuleText
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import FunctionPath
from convex_backend.values.schema import EVALUATION_PREFIX, SchemaDefinition
from convex_backend.values.validators import (
    InvalidValidator,
    LiteralValidator,
    UnionValidator,
    Validator,
    parse_args,
    parse_returns,
    parse_text,
)

PUSH_PREFIX: Final = "Hit an error while pushing:\n"
_MODULES_PREFIX: Final = "Loading the pushed modules encountered the following\n    error:\n"
_NO_ANALYSIS: Final[dict[str, Any]] = {
    "functions": [],
    "httpRoutes": None,
    "cronSpecs": None,
    "closure": [],
    "dynamicClosure": [],
    "importTime": False,
    "importRandom": False,
    "env": [],
    "reuseContext": False,
    "realmRefusal": "not judged",
}

#: What an app without ``convex.config.ts`` defines, in the form of ``analysis[""].definition``.
DEFAULT_DEFINITION: Final[dict[str, Any]] = {
    "path": "",
    "definitionType": {"type": "app"},
    "childComponents": [],
    "httpMounts": {},
    "exports": {"type": "branch", "branch": []},
    "envVars": [],
}


class OpenAnalysis(Protocol):
    """A child that analyses (``functions.analyze.Analysis``)."""

    async def run(self, spec: AnalysisSpec) -> Any:
        """:raises BadRequest: the code's own fault."""

    def close(self) -> Awaitable[None]:
        """End the child."""


class AnalysisPool(Protocol):
    """Where children that analyse come from (``functions.analyze.Analyzer``)."""

    async def open_analysis(self, modules: Iterable[ModuleText]) -> Any:
        """A started child that knows *modules*, an :class:`OpenAnalysis`."""


@attrs.frozen(slots=True, eq=False)
class Evaluated:
    """A push that was found good.

    :param definition: ``analysis[""].definition`` (``push.md`` section 7.2).
    :param auth: ``appAuth``. :param modules: rows to be, by path. :param texts: of the modules that were sent.
    """

    definition: dict[str, Any]
    auth: list[dict[str, Any]]
    schema: SchemaDefinition | None
    modules: dict[str, StoredModule]
    texts: tuple[ModuleText, ...]
    udf_config: UdfConfig

    @property
    def env_declarations(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and declarations of the environment variables that the app declares."""
        return [(name, declared) for name, declared in self.definition.get("envVars") or ()]


class PushRefused(BadRequest):
    """One module of a push is at fault.

    :param module: its path. :param reason: the fault without the words that the CLI shows around it.
    :param location: path and line (from 1) of the fault, which may be in another module; ``None`` when unknown.
    """

    def __init__(self, code: str, message: str, module: str, cause: ConvexError) -> None:
        super().__init__(code, message)
        self.module = module
        self.reason = cause.message
        self.location: tuple[str, int] | None = getattr(cause, "location", None)


def push_error(error: ConvexError, code: str, prefix: str = "", *, module: str) -> BadRequest:
    """An evaluation failure as the CLI shows it."""
    return PushRefused(code, f"{PUSH_PREFIX}{prefix}{error.message}", module, error)


async def evaluate_auth(
    child: OpenAnalysis, module_hash: str, env: Mapping[str, str], modules: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Evaluate ``auth.config.js``.

    :param module_hash: of its runnable form; *child* knows the module.
    :param modules: hashes by path of what it may import.
    :returns: the providers, checked.
    :raises BadRequest: with the codes of ``push.md`` section 7.1.
    """
    known = {**(modules or {}), AUTH_CONFIG: module_hash}
    try:
        config = await child.run(AnalysisSpec("auth", AUTH_CONFIG, known, env, b"", 0.0))
    except BadRequest as error:
        raise push_error(error, _auth_code(error), module=AUTH_CONFIG) from None
    return [_provider(one) for one in _providers(config)]


def _auth_code(error: ConvexError) -> str:
    if error.code != "InvalidModules":
        return error.code
    if "is used in auth config file but its value was not set" in error.message:
        return "AuthConfigMissingEnvironmentVariable"
    if "missing default export" in error.message:
        return "AuthConfigMissingExportError"
    return "InvalidAuthConfig"


def _auth_fault(text: str) -> BadRequest:
    return BadRequest(
        "AuthConfigNotMatchingSchemaError",
        f"{PUSH_PREFIX}auth config file doesn't match the expected shape: {text}. See https://docs.convex.dev/auth for more.",
    )


def _providers(config: Any) -> list[Any]:
    providers = config.get("providers") if isinstance(config, dict) else None
    if not isinstance(providers, list):
        raise _auth_fault("`providers` must be an array")
    return providers


def _provider(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _auth_fault("a provider must be an object")
    application = tree.get("applicationID")
    if tree.get("type") in (None, "oidc"):
        if not isinstance(application, str) or not isinstance(tree.get("domain"), str):
            raise _auth_fault("an OIDC provider has a `domain` and an `applicationID`, both strings")
        return {"applicationID": application, "domain": tree["domain"]}
    if tree["type"] != "customJwt":
        raise _auth_fault(f"unknown provider type {tree['type']!r}")
    if not (application is None or isinstance(application, str)):
        raise _auth_fault("`applicationID` must be a string")
    if not isinstance(tree.get("issuer"), str) or not isinstance(tree.get("jwks"), str):
        raise _auth_fault("a custom JWT provider has an `issuer` and a `jwks`, both strings")
    if tree.get("algorithm") not in ("RS256", "ES256"):
        raise _auth_fault("`algorithm` must be RS256 or ES256")
    return {
        "type": "customJwt",
        "applicationID": application,
        "issuer": tree["issuer"],
        "jwks": tree["jwks"],
        "algorithm": tree["algorithm"],
    }


class Evaluation:
    """The evaluation of one push.

    :param deployed: modules that are deployed, by path.
    :param env: variables of the app, built-in ones included.
    :param read_text: text of a deployed module by hash.
    """

    def __init__(
        self,
        request: PushRequest,
        deployed: Mapping[str, StoredModule],
        env: Mapping[str, str],
        config: UdfConfig,
        read_text: Callable[[str], Awaitable[ModuleText]],
    ) -> None:
        self._request = request
        self._deployed = deployed
        self._env = env
        self._config = config
        self._read_text = read_text

    async def run(self, pool: AnalysisPool) -> Evaluated:
        """Evaluate everything. :raises BadRequest: the pushed code's fault. :raises ServerFault: ours."""
        request = self._request
        kept = {path: stored for path in request.modules if (stored := self._known(path)) is not None}
        everything = request.linked or len(kept) < len(request.modules)
        child = await pool.open_analysis(await self._texts(everything=everything))
        try:
            definition = await self._definition(child)
            auth_module = request.modules.get(AUTH_CONFIG)
            auth = []
            if auth_module is not None:
                auth = await evaluate_auth(child, auth_module.hash, self._env, self._reachable(auth_module))
            schema = await self._schema(child)
            modules = {}
            for path, module in request.modules.items():
                modules[path] = kept.get(path) or await self._module(child, module)
        finally:
            await child.close()
        check_crons(modules)
        texts = tuple(module.text for module in request.modules.values() if module.text is not None)
        return Evaluated(definition, auth, schema, modules, texts, self._config)

    async def run_schema(self, pool: AnalysisPool) -> SchemaDefinition | None:
        """Evaluate the schema alone. :raises BadRequest: the pushed code's fault."""
        module = self._request.schema
        if module is None or module.text is None:
            return None
        child = await pool.open_analysis(await self._texts(everything=True) if self._request.linked else [module.text])
        try:
            return await self._schema(child)
        finally:
            await child.close()

    def _known(self, path: str) -> StoredModule | None:
        """The deployed row of *path* if evaluating the module again could give nothing else."""
        stored = self._deployed.get(path)
        module = self._request.modules[path]
        if stored is None or (stored.hash, stored.environment) != (module.hash, module.environment):
            return None
        if not stored.analysis:
            return stored
        tree = stored.tree()
        if tree["env"] or tree["importTime"] or tree["importRandom"]:
            return None
        modules = self._request.modules
        reached = tree["dynamicClosure"]
        if any(name not in modules or modules[name].hash != digest for name, digest in reached):
            return None
        return stored

    async def _texts(self, *, everything: bool) -> list[ModuleText]:
        """The texts that the child needs.

        :param everything: some module must be analysed, and may import any other.
        """
        request = self._request
        found = [one.text for one in (request.definition, request.schema) if one is not None and one.text is not None]
        for module in request.modules.values():
            if not everything and module.path != AUTH_CONFIG:
                continue
            found.append(module.text or await self._read_text(module.hash))
        return found

    def _reachable(self, module: PushedModule) -> dict[str, str]:
        """Hashes by path of what definition, schema or auth config may import: only itself, if a bundler made it."""
        if not self._request.linked:
            return {module.path: module.hash}
        hashes = {one.path: one.hash for one in self._request.modules.values() if one.environment == ISOLATE}
        return {**hashes, module.path: module.hash}

    def _spec(self, what: str, path: str, modules: Mapping[str, str], env: Mapping[str, str]) -> AnalysisSpec:
        config = self._config
        return AnalysisSpec(what, path, modules, env, config.seed, float(config.time_ns // 1_000_000))

    async def _definition(self, child: OpenAnalysis) -> dict[str, Any]:
        module = self._request.definition
        if module is None:
            return DEFAULT_DEFINITION
        spec = attrs.evolve(
            self._spec("app", module.path, self._reachable(module), self._env),
            extra=orjson.dumps({"component": "", "dependencies": []}),
        )
        try:
            definition = await child.run(spec)
        except BadRequest as error:
            code = "InvalidConvexConfig" if error.code == "InvalidModules" else error.code
            raise push_error(error, code, module=module.path) from None
        if not isinstance(definition, dict) or not isinstance(definition.get("definitionType"), dict):
            raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}convex.config.ts does not export an app definition.")
        if definition["definitionType"].get("type") != "app":
            raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}convex.config.ts must export `defineApp()`.")
        children = definition.get("childComponents") or []
        if children:
            raise components_unavailable([str(child.get("name")) for child in children])
        if definition.get("httpPrefix"):
            raise BadRequest(
                "HttpPrefixNotAvailable",
                "An HTTP prefix of the app is not available in this version of convex-backend yet.",
            )
        definition = {**DEFAULT_DEFINITION, **definition, "path": ""}
        for name, declared in definition.get("envVars") or ():
            parse_declaration(name, declared)
        return definition

    async def _schema(self, child: OpenAnalysis) -> SchemaDefinition | None:
        module = self._request.schema
        if module is None:
            return None
        try:
            exported = await child.run(self._spec("schema", module.path, self._reachable(module), {}))
        except BadRequest as error:
            raise push_error(error, _schema_code(error), EVALUATION_PREFIX, module=module.path) from None
        try:
            return SchemaDefinition.parse(exported)
        except BadRequest as error:
            raise push_error(error, error.code, EVALUATION_PREFIX, module=module.path) from None

    async def _module(self, child: OpenAnalysis, module: PushedModule) -> StoredModule:
        row = StoredModule(module.path, module.environment, module.sha256, module.hash, "")
        if module.is_deps:
            return row
        tree: dict[str, Any] = dict(_NO_ANALYSIS)
        if module.path != AUTH_CONFIG and module.environment == ISOLATE:
            hashes = {one.path: one.hash for one in self._request.modules.values() if one.environment == ISOLATE}
            try:
                found = await child.run(self._spec("module", module.path, hashes, self._env))
            except BadRequest as error:
                raise _module_error(module.path, error) from None
            tree = {name: found.get(name, default) for name, default in _NO_ANALYSIS.items()}
            _check_functions(module.path, tree["functions"])
            for name in ("closure", "dynamicClosure"):
                tree[name] = [[path, hashes[path]] for path in tree[name]]
            if tree["cronSpecs"] is not None:
                tree["cronSpecs"] = [_cron_spec(one) for one in tree["cronSpecs"]]
        return attrs.evolve(row, analysis=orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode())


def _module_error(path: str, error: BadRequest) -> BadRequest:
    message = error.message
    if error.code not in ("InvalidModules", "InvalidFunctionName", "InvalidCron"):
        return PushRefused(error.code, PUSH_PREFIX + message, path, error)
    if not message.startswith("Failed to analyze"):
        message = f"Failed to analyze {path}: {message}"
    return PushRefused(error.code, f"{PUSH_PREFIX}{_MODULES_PREFIX}{message}", path, error)


def _schema_code(error: BadRequest) -> str:
    if error.code != "InvalidModules":
        return error.code
    if "missing default export" in error.message:
        return "MissingSchemaExportError"
    if "isn't a Convex schema" in error.message:
        return "InvalidSchemaExport"
    return "InvalidSchema"


def _check_functions(path: str, functions: list[dict[str, Any]]) -> None:
    """:raises BadRequest: a function's validators are not ones that the server understands (``runtime.md`` section 1.5)."""
    for function in functions:
        for member, what, read in (("args", "args", parse_args), ("returns", "return value", parse_returns)):
            text = function.get(member)
            if text is None:
                continue
            try:
                read(text)
            except (InvalidValidator, InvalidValue) as error:
                raise _module_error(
                    path,
                    BadRequest(
                        "InvalidModules",
                        f"Error in {what} validator: {error.message}\nSee https://docs.convex.dev/functions/validation "
                        f"for docs on how to do {'argument' if member == 'args' else 'return value'} validation.",
                    ),
                ) from None


def _cron_spec(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "identifier": job["identifier"],
        "spec": {
            "udfPath": FunctionPath.parse(job["name"]).canonical,
            "udfArgs": orjson.dumps(job["args"]).decode(),
            "cronSchedule": job["cronSchedule"],
        },
    }


def check_crons(modules: Mapping[str, StoredModule]) -> None:
    """:raises BadRequest: a cron job has a pattern that is malformed or never matches, or schedules what is not a mutation or action of the app."""
    for module in modules.values():
        for job in module.tree().get("cronSpecs") or ():
            try:
                parse_schedule(job["spec"]["cronSchedule"])
            except BadRequest as error:
                raise _module_error(module.path, error) from None
            path = FunctionPath.parse(job["spec"]["udfPath"])
            target = modules.get(path.module)
            if target is not None and target.environment != ISOLATE:
                continue
            functions = target.tree().get("functions", ()) if target is not None else ()
            kinds = [function["udfType"] for function in functions if function["name"] == path.name]
            text = f"The cron job '{job['identifier']}' schedules"
            if not kinds:
                raise BadRequest(
                    "InvalidModules", f"{PUSH_PREFIX}{text} a function that does not exist: {path.stripped}"
                )
            if kinds[0] == "Query":
                raise BadRequest(
                    "InvalidModules",
                    f"{PUSH_PREFIX}{text} a query function, only mutations and actions can be scheduled: {path.stripped}",
                )


# -- declared environment variables ---------------------------------------------------------------------


def _string_like(validator: Validator) -> bool:
    if isinstance(validator, UnionValidator):
        return all(map(_string_like, validator.members))
    if isinstance(validator, LiteralValidator):
        return isinstance(validator.literal, str)
    return validator.to_json() == {"type": "string"}


def parse_declaration(name: str, declared: Any) -> Validator:
    """The validator of a declared variable.

    :raises BadRequest: ``InvalidEnvVarDeclaration``: values are strings, and only strings.
    """
    try:
        validator = parse_text(declared["value"])
    except (InvalidValidator, InvalidValue, KeyError, TypeError) as error:
        raise BadRequest(
            "InvalidEnvVarDeclaration", f"{PUSH_PREFIX}The declaration of {name} is malformed: {error}"
        ) from None
    if not _string_like(validator):
        raise BadRequest(
            "InvalidEnvVarDeclaration",
            f"{PUSH_PREFIX}The environment variable {name} must be declared as a string, string literals, or a union of them.",
        )
    return validator
