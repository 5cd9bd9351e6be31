// The sync protocol by hand: a refreshed token with an equal identity, then the expiry of a connection's token.
import WebSocket from "ws";

const [, , url, issuer] = process.argv;
const print = (value) => console.log(JSON.stringify(value));
const token = async (query) => (await fetch(`${issuer}/token?${query}`)).json();
const socket = new WebSocket(`${url.replace(/^http/, "ws")}/api/1.48.0/sync`);
const inbox = [];
let wake = () => {};
socket.on("message", (data) => (inbox.push(JSON.parse(data)), wake()));
socket.on("close", (code) => (inbox.push({ type: "close", code }), wake()));
const send = (message) => socket.send(JSON.stringify(message));
async function next() {
  for (;;) {
    while (inbox.length === 0) await new Promise((resolve) => (wake = resolve));
    const message = inbox.shift();
    if (message.type !== "Ping") return message;
  }
}
await new Promise((resolve) => socket.on("open", resolve));
send({ type: "Connect", sessionId: crypto.randomUUID(), connectionCount: 0, lastCloseReason: "InitialConnect", clientTs: Date.now() });
send({ type: "Authenticate", baseVersion: 0, tokenType: "User", value: await token("user=ada&seconds=60") });
send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [{ type: "Add", queryId: 0, udfPath: "users:me", args: [{}] }] });
const first = await next();
print({ identity: first.endVersion.identity, subject: first.modifications[0].value.subject });
send({ type: "Authenticate", baseVersion: 1, tokenType: "User", value: await token("user=ada&seconds=2") });
const second = await next();
print({ identity: second.endVersion.identity, modifications: second.modifications.length });
await new Promise((resolve) => setTimeout(resolve, 3100));
print({ idle: inbox.filter((message) => message.type !== "Ping").length });
send({ type: "Mutation", requestId: 0, udfPath: "users:join", args: [{}] });
print(await next());
print((await next()).type);
process.exit(0);
