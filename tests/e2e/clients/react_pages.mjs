// usePaginatedQuery of ConvexReactClient in jsdom while rows come, go and move between the loaded pages: what is shown is always the beginning of
// the whole list, which the same component watches by a query of its own.
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const { createElement: h } = await import("react");
const { createRoot } = await import("react-dom/client");
const { ConvexHttpClient } = await import("convex/browser");
const { ConvexProvider, ConvexReactClient, usePaginatedQuery, useQuery } = await import("convex/react");
const { anyApi: api } = await import("convex/server");

const url = process.argv[2];
const client = new ConvexReactClient(url, { skipConvexDeploymentUrlCheck: true });
const writer = new ConvexHttpClient(url, { skipConvexDeploymentUrlCheck: true });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let state = 12345; // the same changes in every run
const random = (n) => {
  state = (state * 1103515245 + 12345) % 2147483648;
  return state % n;
};

await writer.mutation(api.data.add, { ranks: Array.from({ length: 12 }, (_, n) => n * 10), label: "first" });

let shown;
let renders = 0;
const faults = [];
function Page() {
  const all = useQuery(api.data.all, {});
  const pages = usePaginatedQuery(api.data.page, {}, { initialNumItems: 4 });
  shown = { all, ...pages };
  renders++;
  const ids = pages.results.map((row) => row._id);
  if (new Set(ids).size !== ids.length) faults.push("a row is shown twice");
  if (pages.results.some((row, n) => n > 0 && row.rank < pages.results[n - 1].rank)) faults.push("out of order");
  if (all !== undefined && all.slice(0, ids.length).some((row, n) => row._id !== ids[n])) faults.push("a row is missing");
  return h("p", null, pages.status);
}

const root = createRoot(document.getElementById("root"));
root.render(h(ConvexProvider, { client }, h(Page)));
async function until(what, check) {
  for (let n = 0; n < 1500; n++) {
    if (shown !== undefined && check(shown)) return;
    await sleep(10);
  }
  throw new Error(`never ${what}: ${JSON.stringify({ status: shown.status, results: shown.results.length, all: shown.all?.length })}`);
}

await until("shows the first page", (s) => s.status === "CanLoadMore" && s.results.length === 4);
shown.loadMore(3);
await until("shows two pages", (s) => s.status === "CanLoadMore" && s.results.length === 7);

for (let round = 0; round < 20; round++) {
  await Promise.all(
    Array.from({ length: 3 }, () => {
      const kind = random(3);
      if (kind === 0) return writer.mutation(api.data.add, { ranks: [random(120)], label: "added" });
      if (kind === 1) return writer.mutation(api.data.change, { place: random(40), rank: random(120) });
      return writer.mutation(api.data.change, { place: random(40) });
    }),
  );
  if (round === 8 && shown.status === "CanLoadMore") shown.loadMore(2);
}
console.log(JSON.stringify({ churn: faults }));

// The answers to the writer may overtake the updates of the socket: rows are counted only once the component shows the last of the changes.
const places = (rows) => JSON.stringify(rows.map((row) => [row._id, row.rank]));
const changed = places(await writer.query(api.data.all, {}));
await until("shows the last change", (s) => s.all !== undefined && places(s.all) === changed && s.status !== "LoadingMore");

// The first page grows far beyond what was asked for: the client splits it.
const before = shown.results.length;
await writer.mutation(api.data.add, { ranks: Array.from({ length: 40 }, (_, n) => n / 100 - 1), label: "crowd" });
await until("shows the crowd", (s) => s.results.length === before + 40);
await sleep(200);
while (shown.status !== "Exhausted") {
  if (shown.status === "CanLoadMore") shown.loadMore(10);
  await sleep(20);
}
await until("shows everything", (s) => s.all !== undefined && s.all.length === s.results.length);
console.log(JSON.stringify({ split: faults, renders: renders > 10, rows: shown.results.length }));

// Rows behind the end of the exhausted list are shown too.
await writer.mutation(api.data.add, { ranks: [1000, 1001], label: "last" });
await until("shows the last rows", (s) => s.results.at(-1)?.rank === 1001 && s.results.length === s.all.length);
console.log(JSON.stringify({ end: faults }));
root.unmount();
await client.close();
process.exit(0);
