// ConvexReactClient with hooks in jsdom: a query renders, a mutation updates it, optimistic update, pagination.
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const { createElement: h } = await import("react");
const { createRoot } = await import("react-dom/client");
const { ConvexProvider, ConvexReactClient, useMutation, usePaginatedQuery, useQuery } = await import("convex/react");
const { anyApi: api } = await import("convex/server");

const client = new ConvexReactClient(process.argv[2], { skipConvexDeploymentUrlCheck: true });
const channel = await client.mutation(api.channels.create, { name: "react" });
const author = await client.mutation(api.users.join, { name: "Rea" });

let send;
let more;
function Page() {
  const list = useQuery(api.messages.list, { channel });
  const pages = usePaginatedQuery(api.messages.page, { channel }, { initialNumItems: 2 });
  send = useMutation(api.messages.send);
  more = pages.loadMore;
  if (list === undefined) return h("p", null, "loading");
  return h("ul", null, [
    ...list.map((m) => h("li", { key: m._id }, m.body)),
    h("b", { key: "pages" }, `${pages.status}:${pages.results.map((m) => m.body).join(",")}`),
  ]);
}

const root = createRoot(document.getElementById("root"));
root.render(h(ConvexProvider, { client }, h(Page)));
async function shows(pattern) {
  for (let i = 0; i < 1000; i++) {
    const text = document.getElementById("root").textContent;
    if (pattern.test(text)) return text;
    await new Promise((r) => setTimeout(r, 10));
  }
  throw new Error(`never shows ${pattern}: ${document.getElementById("root").innerHTML}`);
}
await shows(/^Exhausted:$|^CanLoadMore:$/);
for (const body of ["a", "b", "c", "d", "e"]) await send({ channel, author, body });
console.log(JSON.stringify(await shows(/^abcde(CanLoadMore|Exhausted):/)));
if (/CanLoadMore/.test(document.getElementById("root").textContent)) {
  more(10);
}
console.log(JSON.stringify(await shows(/^abcdeExhausted:e,d,c,b,a$/)));
root.unmount();
await client.close();
process.exit(0);
