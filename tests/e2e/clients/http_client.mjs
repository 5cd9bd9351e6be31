// ConvexHttpClient: query, mutation, action, consistentQuery, ConvexError.
import { ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const print = (value) => console.log(JSON.stringify(value, (_k, v) => (typeof v === "bigint" ? `${v}n` : v)));
const client = new ConvexHttpClient(process.argv[2]);
const channel = await client.mutation(api.channels.create, { name: "http" });
const author = await client.mutation(api.users.join, { name: "Hal" });
const id = await client.mutation(api.messages.send, { channel, author, body: "hello" });
print({ message: await client.query(api.messages.get, { id }) });
print({ consistent: (await client.consistentQuery(api.messages.list, { channel })).length });
print({ shout: await client.action(api.messages.shout, { channel, author, body: "loud" }) });
try {
  await client.mutation(api.messages.send, { channel, author, body: "" });
} catch (error) {
  print({ data: error.data });
}
try {
  await client.query(api.messages.bodyOf, { id });
} catch (error) {
  print({ message: error.message });
}
