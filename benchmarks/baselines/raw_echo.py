"""How fast can the load generator go? The least that looks like an HTTP server: a fixed answer to every request. Prints its port."""

from __future__ import annotations

import asyncio

BODY = b'{"status":"success","value":null}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s" % (len(BODY), BODY)


class Echo(asyncio.Protocol):
    """Every read is taken for one whole request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self.transport.write(ANSWER)


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
