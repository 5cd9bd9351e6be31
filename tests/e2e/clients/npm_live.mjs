// The React hooks of @convex-dev/presence and @convex-dev/persistent-text-streaming in jsdom: two people in a room, one leaves;
// the author of a text reads it from the HTTP action, a reader from the database.
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const { createElement: h } = await import("react");
const { createRoot } = await import("react-dom/client");
const { ConvexProvider, ConvexReactClient } = await import("convex/react");
const { anyApi: api } = await import("convex/server");
const { default: usePresence } = await import("@convex-dev/presence/react");
const { useStream } = await import("@convex-dev/persistent-text-streaming/react");

const [, , url, siteUrl] = process.argv;
const client = new ConvexReactClient(url, { skipConvexDeploymentUrlCheck: true });
const root = createRoot(document.getElementById("root"));
async function shows(pattern) {
  for (let i = 0; i < 2000; i++) {
    const text = document.getElementById("root").textContent;
    if (pattern.test(text)) return text;
    await new Promise((r) => setTimeout(r, 10));
  }
  throw new Error(`never shows ${pattern}: ${document.getElementById("root").innerHTML}`);
}

function Person({ name, shown }) {
  const people = usePresence(api.presence, "lobby", name, 10000) ?? [];
  return shown ? h("p", null, people.map((one) => `${one.userId}:${one.online ? "on" : "off"}`).sort().join(" ")) : null;
}
function Room({ names }) {
  return names.map((name) => h(Person, { key: name, name, shown: name === names[0] }));
}
root.render(h(ConvexProvider, { client }, h(Room, { names: ["ann", "bob"] })));
console.log(JSON.stringify(await shows(/^ann:on bob:on$/)));
root.render(h(ConvexProvider, { client }, h(Room, { names: ["ann"] })));
console.log(JSON.stringify(await shows(/^ann:on bob:off$/)));

const seen = { driver: new Set(), reader: new Set() };
function Text({ streamId, driven }) {
  const { text, status } = useStream(api.texts.body, streamUrl, driven, streamId);
  seen[driven ? "driver" : "reader"].add(text);
  return h("p", null, `${status}:${text};`);
}
const streamUrl = new URL(`${siteUrl}/write`); // one object: the hook starts anew with another
const streamId = await client.mutation(api.texts.create, {});
function Texts() {
  return [true, false].map((driven) => h(Text, { key: String(driven), streamId, driven }));
}
root.render(h(ConvexProvider, { client }, h(Texts)));
const whole = "Once upon a time. There was a database. The end";
await shows(new RegExp(`^done:${whole};done:${whole};$`));
console.log(JSON.stringify({ driver: [...seen.driver], reader: [...seen.reader] }));
root.unmount();
await client.close();
process.exit(0);
