"""What a program does with the PyPI client; prints one JSON line a step, and waits for a line where the test has something to do."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from convex import ConvexClient, ConvexError, ConvexInt64


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def main(url: str, admin_key: str) -> None:
    client = ConvexClient(url)
    mine = client.subscribe("bank:mine", {"client": "py"})
    updates = iter(mine)
    say({"first": next(updates)})
    client.mutation("bank:note", {"client": "py", "tag": "one"})
    say({"pushed": next(updates)})
    say({"queried": client.query("bank:mine", {"client": "py"})})
    sent = client.mutation("bank:transfer", {"client": "py", "tag": "two", "from": 0, "to": 1, "amount": 5})
    say({"after": client.query("bank:counter"), "sent": sent})
    answer = client.action("bank:echo", {"value": [1.5, "é", None, b"\x00\xff", ConvexInt64(7)]})["value"]
    say({"echo": [*answer[:3], list(answer[3]), type(answer[4]).__name__]})
    for call, name, args in (
        (client.mutation, "bank:transfer", {"client": "py", "tag": "no", "from": 0, "to": 1, "amount": -1}),
        (client.action, "bank:echo", {"value": 3, "fail": True}),
        (client.query, "bank:fails", {"when": client.query("bank:counter") % 2}),
    ):
        try:
            call(name, args)
        except ConvexError as error:
            say({"code": error.data["code"]})
    try:
        client.query("bank:secret")
    except Exception as error:
        say({"refused": str(error)})
    client.set_admin_auth(admin_key)
    say({"secret": client.query("bank:secret"), "user": client.query("bank:whoami")})
    client.clear_auth()
    say({"ready": "restart"})
    sys.stdin.readline()
    while True:
        try:
            client.mutation("bank:note", {"client": "py", "tag": "three"})
            break
        except Exception as error:
            # The client fails requests that it takes up while it cannot connect; it may all the same send one of them later.
            if "channel closed" not in str(error):
                raise
            time.sleep(0.2)
    while True:
        value = next(updates)
        if value[-1] == "three":
            break
    say({"restarted": sorted(set(value))})


main(*sys.argv[1:])
