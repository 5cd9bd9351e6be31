// Two ConvexClients on one channel stay in step; values, errors, actions and unsubscribe as an app sees them.
import { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";

const print = (value) => console.log(JSON.stringify(value, (_k, v) => (typeof v === "bigint" ? `${v}n` : v)));
const url = process.argv[2];
const api = anyApi;
const ann = new ConvexClient(url);
const bob = new ConvexClient(url);

function until(client, query, args, wanted) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no such update of ${JSON.stringify(args)}`)), 20000);
    const stop = client.onUpdate(
      query,
      args,
      (value) => {
        if (wanted(value)) {
          clearTimeout(timer);
          stop();
          resolve(value);
        }
      },
      reject,
    );
  });
}

const channel = await ann.mutation(api.channels.create, { name: "general" });
const user = await bob.mutation(api.users.join, { name: "Bob" });
const seen = until(ann, api.messages.list, { channel }, (list) => list.length === 3);
const alsoSeen = until(bob, api.messages.list, { channel }, (list) => list.length === 3);
for (const body of ["one", "two", "three"]) await bob.mutation(api.messages.send, { channel, author: user, body });
const list = await seen;
print({ bodies: list.map((m) => m.body), size: list[0].size, same: JSON.stringify((await alsoSeen).map((m) => m._id)) === JSON.stringify(list.map((m) => m._id)) });

try {
  await ann.mutation(api.messages.send, { channel, author: user, body: "" });
} catch (error) {
  print({ name: error.name, data: error.data, message: error.message });
}
try {
  await ann.mutation(api.messages.send, { channel, author: user, body: "boom" });
} catch (error) {
  print({ name: error.name, message: error.message });
}
try {
  await ann.mutation(api.messages.send, { channel, author: user });
} catch (error) {
  print({ message: error.message });
}
try {
  await ann.query(api.nope.nothing, {});
} catch (error) {
  print({ message: error.message });
}
print({ shouted: await ann.action(api.messages.shout, { channel, author: user, body: "hey" }) });
const liked = until(bob, api.messages.list, { channel }, (l) => l[0].likes === 5);
await Promise.all([1, 2, 3, 4, 5].map(() => ann.mutation(api.messages.like, { id: list[0]._id })));
print({ likes: (await liked)[0].likes });
print({ edited: await ann.mutation(api.messages.edit, { id: list[0]._id, body: "uno" }) });
print({ count: await bob.query(api.users.count, {}), whoami: await bob.query(api.users.whoami, {}) });
await ann.close();
await bob.close();
