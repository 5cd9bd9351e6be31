// What an app does with ConvexClient beyond queries and mutations: optimistic updates, acting as a user, the network lost and found.
// Standard input drives the steps that need the test's hands; each step prints one JSON line.
import { createInterface } from "node:readline";
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const [, , url, adminKey] = process.argv;
const print = (value) => console.log(JSON.stringify(value));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = async () => (await lines.next()).value;
const client = new ConvexClient(url, { skipConvexDeploymentUrlCheck: true, unsavedChangesWarning: false });

function follow(query, args) {
  const seen = [];
  const waiting = [];
  client.onUpdate(query, args, (value) => {
    seen.push(value);
    for (const check of [...waiting]) check(value);
  });
  return {
    seen,
    until: (wanted) =>
      new Promise((resolve) => {
        const check = (value) => {
          if (!wanted(value)) return;
          waiting.splice(waiting.indexOf(check), 1);
          resolve(value);
        };
        waiting.push(check);
        if (seen.length > 0) check(seen.at(-1));
      }),
  };
}

// 1. An optimistic update shows at once, is replaced by the server's result, and is taken back when the mutation fails.
const mine = follow(api.bank.mine, { client: "optimist" });
await mine.until((list) => list.length === 0);
const hope = (tag) => ({
  optimisticUpdate: (store) => {
    const list = store.getQuery(api.bank.mine, { client: "optimist" }) ?? [];
    store.setQuery(api.bank.mine, { client: "optimist" }, [...list, `${tag}?`]);
  },
});
const note = client.mutation(api.bank.note, { client: "optimist", tag: "real" }, hope("real"));
await mine.until((list) => list.length === 1);
await note;
try {
  await client.mutation(
    api.bank.transfer,
    { client: "optimist", tag: "never", from: 0, to: 1, amount: -1 },
    hope("never"),
  );
} catch (error) {
  print({ failed: error.data });
}
await mine.until((list) => list.length === 1 && list[0] === "real");
print({ shown: mine.seen });

// 2. An admin acts as a user; queries are evaluated again for it.
const whoami = follow(api.bank.whoami, {});
await whoami.until((user) => user === null);
client.setAdminAuth(adminKey, { issuer: "https://issuer.example", subject: "ada", name: "Ada" });
const ada = await whoami.until((user) => user !== null);
print({ name: ada.name, tokenIdentifier: ada.tokenIdentifier });

// 3. The network goes: mutations wait, actions that were sent fail; when it is back all is caught up and the identity is kept.
print({ ready: "cut" });
await told();
const later = client.mutation(api.bank.note, { client: "optimist", tag: "offline" });
await told();
await later;
await mine.until((list) => list.at(-1) === "offline");
print({ shown: mine.seen.at(-1), user: (await client.query(api.bank.whoami, {})).name });

// 4. A stall: nothing is lost and nothing is sent twice.
print({ ready: "stall" });
await told();
const counted = await Promise.all(
  Array.from({ length: 5 }, (_, n) =>
    client.mutation(api.bank.transfer, { client: "optimist", tag: `stalled${n}`, from: n, to: n + 1, amount: 1 }),
  ),
);
print({ rising: counted.every((seq, n) => n === 0 || seq > counted[n - 1]) });
const echoed = await client.action(api.bank.echo, { value: [1n, NaN, "é", null] }).then((a) => a.value);
print({ echoed: [echoed[0] === 1n, Number.isNaN(echoed[1]), echoed[2], echoed[3]] });
await client.close();
process.exit(0);
