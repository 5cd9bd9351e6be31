// Commit timestamps with the real client: values of mutations and documents, and a live query that follows them.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const client = new ConvexClient(process.argv[2], { skipConvexDeploymentUrlCheck: true });
const lists = [];
client.onUpdate(api.data.events, {}, (rows) => lists.push(rows));
const answers = await Promise.all([..."abcdef"].map((name) => client.mutation(api.data.note, { name })));
const rows = await client.query(api.data.events, {});
const later = await client.query(api.data.events, { after: rows[2].at });
for (let n = 0; n < 500 && lists.at(-1)?.length !== 6; n++) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(
  JSON.stringify({
    read: answers.every((one) => one.read),
    bigints: answers.every((one) => typeof one.at === "bigint"),
    same: answers.map((one) => one.at).sort().join() === rows.map((one) => one.at).join(),
    unique: new Set(rows.map((one) => one.at)).size,
    later: later.length,
    live: lists.at(-1).map((one) => one.at).join() === rows.map((one) => one.at).join(),
    census: await client.mutation(api.data.census, {}),
  }),
);
await client.close();
process.exit(0);
