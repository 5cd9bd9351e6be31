// Follows the counter; after a line on standard input sends one transfer.
import { createInterface } from "node:readline";
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const print = (value) => console.log(JSON.stringify(value));
const client = new ConvexClient(process.argv[2], { skipConvexDeploymentUrlCheck: true, unsavedChangesWarning: false });
client.onUpdate(api.bank.counter, {}, (counter) => print({ counter }));
createInterface({ input: process.stdin }).on("line", async () => {
  const args = { client: "asleep", tag: "woken", from: 0, to: 1, amount: 1 };
  print({ sequence: await client.mutation(api.bank.transfer, args) });
});
