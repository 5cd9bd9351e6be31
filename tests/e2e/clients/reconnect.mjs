// One client keeps sending numbered mutations while the server is restarted under it; prints what was acknowledged.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const [, , url, count] = process.argv;
const client = new ConvexClient(url);
const channel = await client.mutation(api.channels.create, { name: "restarts" });
const author = await client.mutation(api.users.join, { name: "Rita" });
let shown = [];
client.onUpdate(api.messages.list, { channel, limit: 1000 }, (list) => {
  shown = list.map((m) => m.body);
});
console.log(JSON.stringify({ ready: true }));
const acknowledged = [];
for (let i = 0; i < Number(count); i++) {
  await client.mutation(api.messages.send, { channel, author, body: `m${i}` });
  acknowledged.push(`m${i}`);
  if (i % 10 === 9) console.log(JSON.stringify({ sent: i + 1 }));
}
for (let i = 0; i < 500 && shown.length < acknowledged.length; i++) await new Promise((r) => setTimeout(r, 20));
console.log(JSON.stringify({ acknowledged: acknowledged.length, shown: shown.length, equal: JSON.stringify(shown) === JSON.stringify(acknowledged) }));
await client.close();
