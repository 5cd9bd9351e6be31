// The React hooks of @convex-dev/auth in jsdom: sign up with a password, a live query as that user, a reload, sign out.
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const { createElement: h } = await import("react");
const { createRoot } = await import("react-dom/client");
const { ConvexReactClient, useConvexAuth, useQuery } = await import("convex/react");
const { anyApi: api } = await import("convex/server");
const { ConvexAuthProvider, useAuthActions } = await import("@convex-dev/auth/react");

const kept = new Map();
const storage = {
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, value) => void kept.set(key, value),
  removeItem: (key) => void kept.delete(key),
};
let actions;
function Page() {
  const { isLoading, isAuthenticated } = useConvexAuth();
  const viewer = useQuery(api.users.viewer, {});
  actions = useAuthActions();
  if (isLoading || viewer === undefined) return h("p", null, "loading");
  return h("p", null, `${isAuthenticated ? "in" : "out"}:${viewer?.email ?? "nobody"}`);
}
let client;
let root;
function open() {
  client = new ConvexReactClient(process.argv[2], { skipConvexDeploymentUrlCheck: true });
  root = createRoot(document.getElementById("root"));
  root.render(h(ConvexAuthProvider, { client, storage, storageNamespace: "test" }, h(Page)));
}
async function shows(pattern) {
  for (let i = 0; i < 2000; i++) {
    const text = document.getElementById("root").textContent;
    if (pattern.test(text)) return text;
    await new Promise((r) => setTimeout(r, 10));
  }
  throw new Error(`never shows ${pattern}: ${document.getElementById("root").innerHTML}`);
}
async function shown(pattern) {
  console.log(JSON.stringify(await shows(pattern)));
}
open();
await shown(/^out:nobody$/);
const answer = await actions.signIn("password", { flow: "signUp", email: "rea@example.com", password: "long enough" });
console.log(JSON.stringify({ signingIn: answer.signingIn }));
await shown(/^in:rea@example.com$/);
root.unmount();
await client.close();
open();
await shown(/^in:rea@example.com$/);
await actions.signOut();
await shown(/^out:nobody$/);
root.unmount();
await client.close();
process.exit(0);
