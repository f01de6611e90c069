#!/usr/bin/env python3
"""A bot that knows nothing of catchment: it publishes chat lines with nats-py, asks the queries of the chat preset, and checks
the answers against what it published.

    chat.py URL PREFIX LINES.ndjson

Prints what it has checked; any other answer than the right one ends it with a traceback and status 1.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict

import nats

url, prefix, file = sys.argv[1:]

# How many may be under way to the stream at a time.
WINDOW = 500
# How long an answer may take on a busy machine.
PATIENCE = 30


async def main():
    nc = await nats.connect(url, error_cb=fail)
    js = nc.jetstream()
    with open(file, encoding="utf-8") as lines:
        said = [line.rstrip("\n") for line in lines]
    began = time.time()

    order = await publish_all(js, said)
    print(f"published {len(order)} lines")
    await js.publish(f"{prefix}.user.joined", json.dumps({"username": "the bot", "timestamp": 1700000000}).encode())
    await js.publish(f"{prefix}.message.log", b'{"message": "from nobody"}')
    await committed(nc, f"{prefix}.user.left", {"username": "the bot"})
    # The events before it are committed with it or before it: nothing has to be waited for.

    await check_recent(nc, order, began)
    users = await check_users(nc, order)
    await check_channel(nc, order, users)
    await check_refusals(nc)
    await check_discovery(nc)
    await nc.close()


async def fail(error):
    sys.exit(f"nats-py: {error!r}")


async def publish_all(js, said):
    """Publishes lines as they stand in the file; gives them back in the order of the stream."""
    order = []

    async def publish(line):
        acknowledgement = await js.publish(f"{prefix}.message.log", line.encode(), timeout=PATIENCE)
        order.append((acknowledgement.seq, json.loads(line)))

    for at in range(0, len(said), WINDOW):
        await asyncio.gather(*(publish(line) for line in said[at : at + WINDOW]))
    return [line for _, line in sorted(order, key=lambda one: one[0])]


async def committed(nc, subject, event):
    """Publishes an event and returns when it is in the database."""
    inbox = nc.new_inbox()
    confirmations = await nc.subscribe(inbox)
    # Without a reply subject the stream acknowledges to nobody.
    await nc.publish(subject, json.dumps(event).encode(), headers={"Catchment-Reply-To": inbox})
    confirmation = await confirmations.next_msg(timeout=PATIENCE)
    body = json.loads(confirmation.data)
    assert body["stored"] is True and body["sequence"] > 0, body
    await confirmations.unsubscribe()
    print(f"event {body['sequence']} of stream {body['stream']} is in the database")


async def ask(nc, query, **parameters):
    answer = await nc.request(f"{prefix}.{query}", json.dumps(parameters).encode(), timeout=PATIENCE)
    assert not (answer.headers or {}).get("Nats-Service-Error"), answer.headers
    return json.loads(answer.data)


def same(rows, lines, began):
    """Whether the rows are these lines, in this order, to the last character."""
    assert len(rows) == len(lines), (len(rows), len(lines))
    for row, line in zip(rows, lines):
        assert (row["username"], row["message"]) == (line["username"], line["message"]), (row, line)
        if "timestamp" in line:
            assert row["timestamp"] == line["timestamp"], (row, line)
            assert type(row["timestamp"]) is type(line["timestamp"]), (row, line)
        else:
            assert began - 60 <= row["timestamp"] <= time.time() + 60, row


async def check_recent(nc, order, began):
    for limit in (1, 20, min(1000, len(order))):
        rows = await ask(nc, "messages.recent", limit=limit)
        same(rows, order[: -limit - 1 : -1], began)
    # A limit is not needed.
    same(await ask(nc, "messages.recent"), order[:-51:-1], began)
    print("the recent messages are those published")


async def check_users(nc, order):
    lines, last = defaultdict(int), {}
    for line in order:
        lines[line["username"]] += 1
        last[line["username"]] = line["message"]
    for username in lines:
        [row] = await ask(nc, "users.stats", username=username)
        assert (row["username"], row["lines"], row["last_message"]) == (username, lines[username], last[username]), row
    [bot] = await ask(nc, "users.stats", username="the bot")
    assert (bot["lines"], bot["joins"], bot["present"], bot["first_seen"]) == (0, 1, 0, 1700000000), bot
    assert await ask(nc, "users.stats", username="nobody at all") == []
    print(f"the statistics of {len(lines)} users are right")
    return len(lines) + 1


async def check_channel(nc, order, users):
    [channel] = await ask(nc, "channel.stats")
    assert (channel["messages"], channel["users"], channel["present"]) == (len(order), users, 0), channel
    print("so are those of the channel")


async def check_refusals(nc):
    answer = await nc.request(f"{prefix}.messages.recent", b"{", timeout=PATIENCE)
    assert answer.headers["Nats-Service-Error-Code"] == "400", answer.headers
    assert "JSON" in answer.headers["Nats-Service-Error"], answer.headers
    print("a request that is no JSON is refused")


async def check_discovery(nc):
    info = json.loads((await nc.request("$SRV.INFO.catchment", b"", timeout=PATIENCE)).data)
    subjects = {endpoint["subject"] for endpoint in info["endpoints"]}
    assert subjects == {f"{prefix}.{query}" for query in ("messages.recent", "users.stats", "channel.stats")}, info
    print("the service tells of its queries")


asyncio.run(main())
