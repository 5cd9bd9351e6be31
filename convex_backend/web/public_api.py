"""Functions over HTTP.

====================================  ==========================================================================
``POST /api/query|mutation|action``   ``{path, format?, args}`` → R
``GET /api/query``                    ``?path=&args=&format=`` → R
``POST /api/function``                ``{componentPath?, path, format?, args}`` → R, admin only, any kind
``POST /api/run/<module>/<function>`` ``{args, format?}`` → R, any kind
``POST /api/run_test_function``       ``{bundle: {path, source}, args, format?, componentId?}`` → R, admin only
``POST /api/query_ts``                → ``{ts}``
``POST /api/query_at_ts``             ``{path, format?, args, ts}`` → R
``POST /api/query_batch``             ``{queries: [{path, format?, args}]}`` → ``{results: [R]}``
====================================  ==========================================================================

R = ``{"status":"success","value":…,"logLines"?:[…]}`` or ``{"status":"error","errorMessage":…,"errorData"?:…,"logLines":[…]}``, always with 200: a
function's failure is not an HTTP error. Source: ``http_api.md`` sections 2.5 and 3.
"""

from __future__ import annotations

import base64
import binascii
import functools
import struct
from typing import Any, Final
from urllib.parse import unquote

import orjson

from convex_backend.application.types import Caller, CallResult
from convex_backend.errors import BadRequest
from convex_backend.values.json_codec import check_format, reencode
from convex_backend.web.clients import Version, parse_version
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route, bad_shape, parse_json

_TS = struct.Struct("<Q")
_ENCODED = "convex_encoded_json"
_MAX_BATCH = 1000
#: The first version of each client that expects plain JSON when it does not name a format.
_JSON_SINCE: Final[dict[str, Version]] = {
    "npm": (1, 4, 1, True),
    "npm-cli": (1, 4, 1, True),
    "actions": (1, 4, 1, True),
    "python": (0, 5, 0, True),
}


def default_format(caller: Caller) -> str:
    """The format of clients that do not name one: old ones expect the lossless form."""
    return _default_format(caller.client, caller.version)


@functools.lru_cache(maxsize=256)
def _default_format(client: str, version: str | None) -> str:
    since = _JSON_SINCE.get(client)
    number = None if version is None else parse_version(version)
    return _ENCODED if since is not None and number is not None and number < since else "json"


def render(result: CallResult, form: str) -> bytes:
    """The answer R of a function call in *form*."""
    lines = result.log_lines
    error = result.error
    if error is None:
        assert result.value is not None
        value = result.value if form == _ENCODED else reencode(result.value, form)
        if not lines:
            return b'{"status":"success","value":%s}' % value
        logs = orjson.dumps(result.log_texts())
        return b'{"status":"success","value":%s,"logLines":%s}' % (value, logs)
    logs = orjson.dumps(result.log_texts())
    data = b"" if error.data is None else b',"errorData":' + reencode(error.data, form)
    message = orjson.dumps(result.error_message())
    return b'{"status":"error","errorMessage":%s%s,"logLines":%s}' % (message, data, logs)


def _request(call: ApiCall, fields: dict[str, Any]) -> tuple[str, bytes, str]:
    """Path, arguments' JSON text and format of a call's body."""
    path = fields.get("path")
    if not isinstance(path, str):
        raise bad_shape("missing field `path`" if path is None else "path: invalid type, expected a string")
    return path, _args(fields), _format(call, fields)


def _args(fields: dict[str, Any]) -> bytes:
    args = fields.get("args", {})
    if not isinstance(args, dict | list):
        raise bad_shape("args: invalid type, expected an object or an array")
    try:
        return orjson.dumps(args)
    except orjson.JSONEncodeError:
        # What could be parsed can be printed, but for nesting that is far over the limit of values.
        raise bad_shape("args: recursion limit exceeded") from None


def _format(call: ApiCall, fields: dict[str, Any]) -> str:
    form = fields.get("format")
    if form is None:
        return default_format(call.caller)
    if not isinstance(form, str):
        raise BadRequest("BadFormat", "The format must be a string.")
    return check_format(form)


class PublicApi:
    """See the top of the file."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/api/query")
    async def query(self, call: ApiCall) -> bytes:
        """Run a query now."""
        path, args, form = _request(call, call.fields())
        result = await self.front.application.run_query(path, args, call.identity, call.caller)
        return render(result, form)

    @api_route(app, "/api/query", method="GET")
    async def get_query(self, call: ApiCall) -> bytes:
        """Run a query named in the URL."""
        try:
            args = parse_json(call.text_arg("args", "{}").encode())
        except BadRequest as error:
            raise BadRequest("BadQueryArgs", f"The query parameter `args` is not JSON: {error}") from None
        fields: dict[str, Any] = {"path": call.text_arg("path"), "args": args}
        if b"format" in call.request.args:
            fields["format"] = call.text_arg("format")
        path, text, form = _request(call, fields)
        return render(await self.front.application.run_query(path, text, call.identity, call.caller), form)

    @api_route(app, "/api/mutation")
    async def mutation(self, call: ApiCall) -> bytes:
        """Run a mutation."""
        path, args, form = _request(call, call.fields())
        return render(await self.front.application.run_mutation(path, args, call.identity, call.caller), form)

    @api_route(app, "/api/action")
    async def action(self, call: ApiCall) -> bytes:
        """Run an action."""
        path, args, form = _request(call, call.fields())
        return render(await self.front.application.run_action(path, args, call.identity, call.caller), form)

    @api_route(app, "/api/function", auth=Auth.ADMIN)
    async def function(self, call: ApiCall) -> bytes:
        """Run a function of any kind."""
        fields = call.fields()
        path, args, form = _request(call, fields)
        component = fields.get("componentPath")
        if component is not None and not isinstance(component, str):
            raise bad_shape("componentPath: invalid type, expected a string")
        result = await self.front.application.run_function(
            path, args, call.identity, call.caller, component_path=component
        )
        return render(result, form)

    @api_route(app, "/api/run_test_function", auth=Auth.ADMIN)
    async def run_test_function(self, call: ApiCall) -> bytes:
        """Run a query that is sent along."""
        fields = call.fields()
        component = fields.get("componentId")
        if component is not None and not isinstance(component, str):
            raise bad_shape("componentId: invalid type, expected a string")
        bundle = call.field("bundle", dict, "an object")
        form = _format(call, fields)
        result = await self.front.application.ad_hoc_queries.run(
            bundle, _args(fields), component, call.identity, call.caller
        )
        return render(result, form)

    @api_route(app, "/api/run/<path:name>")
    async def run(self, call: ApiCall) -> bytes:
        """Run the function that the URL names."""
        raw = call.request.path.decode("ascii", "replace").removeprefix("/api/run/")
        segments = [unquote(segment) for segment in raw.split("/") if segment]
        if len(segments) < 2:
            raise BadRequest("MissingIdentifier", "Missing function identifier: expected /api/run/<module>/<function>.")
        fields = call.fields()
        form = "json" if fields.get("format") is None else _format(call, fields)
        path = f"{'/'.join(segments[:-1])}:{segments[-1]}"
        result = await self.front.application.run_function(path, _args(fields), call.identity, call.caller)
        return render(result, form)

    @api_route(app, "/api/query_ts", json_body=False, auth=Auth.NONE)
    async def query_ts(self, call: ApiCall) -> bytes:
        """The newest timestamp, for queries that shall agree with each other."""
        return b'{"ts":"%s"}' % base64.b64encode(_TS.pack(self.front.application.latest_ts()))

    @api_route(app, "/api/query_at_ts")
    async def query_at_ts(self, call: ApiCall) -> bytes:
        """Run a query at a timestamp."""
        fields = call.fields()
        path, args, form = _request(call, fields)
        ts = _timestamp(call.field("ts", str, "a string"))
        if ts > self.front.application.latest_ts():
            raise BadRequest("BadTimestamp", "The timestamp is in the future.")
        result = await self.front.application.run_query(path, args, call.identity, call.caller, ts=ts)
        return render(result, form)

    @api_route(app, "/api/query_batch")
    async def query_batch(self, call: ApiCall) -> bytes:
        """Run several queries at one timestamp."""
        queries = call.field("queries", list, "an array")
        if len(queries) > _MAX_BATCH:
            raise BadRequest("TooManyQueries", f"A batch may hold up to {_MAX_BATCH} queries.")
        if not all(isinstance(query, dict) for query in queries):
            raise bad_shape("queries: invalid type, expected an array of objects")
        wanted = [_request(call, query) for query in queries]
        results = await self.front.application.run_queries(
            [(path, args) for path, args, _ in wanted], call.identity, call.caller
        )
        rendered = [render(result, form) for result, (_, _, form) in zip(results, wanted, strict=True)]
        return b'{"results":[%s]}' % b",".join(rendered)


def _timestamp(text: str) -> int:
    try:
        data = base64.b64decode(text, validate=True)
        (ts,) = _TS.unpack(data)
    except (binascii.Error, ValueError, struct.error):
        raise BadRequest("BadTimestamp", "The timestamp must be the base64 text of 8 bytes.") from None
    return int(ts)
