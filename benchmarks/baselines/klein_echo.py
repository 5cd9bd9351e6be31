"""Baseline of HTTP: a bare Klein application that answers a JSON request with the same JSON. Prints its port."""

from __future__ import annotations

import orjson
from klein import Klein
from twisted.internet import reactor
from twisted.web.http import Request
from twisted.web.server import Site

app = Klein()


@app.route("/api/query", methods=["POST"])
def echo(request: Request) -> bytes:
    """The body under ``value``, in the form of an answer to a query."""
    request.setHeader(b"content-type", b"application/json")
    answer = orjson.dumps({"status": "success", "value": orjson.loads(request.content.read())})
    request.setHeader(b"content-length", b"%d" % len(answer))
    return answer


class QuietSite(Site):
    """Without an access log."""

    def log(self, request: Request) -> None:
        """Nothing is logged."""


if __name__ == "__main__":
    port = reactor.listenTCP(0, QuietSite(app.resource()), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()
