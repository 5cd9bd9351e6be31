// A live query that reads through components: each commit of a component that it reads shows, one of another component does not.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const [, , url] = process.argv;
const client = new ConvexClient(url, { skipConvexDeploymentUrlCheck: true });
const seen = [];
const places = [];
client.onUpdate(api.main.get, { name: "live" }, (value) => seen.push(value));
client.onUpdate(api.main.where, {}, (value) => places.push(value));
async function until(what, check) {
  for (let i = 0; i < 1500; i++) {
    if (check()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}
await until("the first results", () => seen.length === 1 && places.length === 1);
await client.mutation(api.main.add, { name: "live", by: 1 });
await until("the change of both components", () => seen.length === 2);
await client.mutation(api.main.add, { name: "another", by: 1 });
await client.mutation(api.main.addCaught, {});
await client.mutation(api.main.add, { name: "live", by: 1 });
await until("the second change", () => seen.at(-1)[0] === 2);
console.log(JSON.stringify({ seen, places }));
await client.close();
