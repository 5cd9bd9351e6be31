import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

const job = defineTable({ n: v.number(), text: v.string() });
const counter = defineTable({ key: v.number(), value: v.number() }).index("by_key", ["key"]);

const row = defineTable({ a: v.number(), b: v.number(), c: v.number(), text: v.string() })
  .index("by_a_b", ["a", "b"])
  .index("by_b", ["b"])
  .index("by_text", ["text"]);

export default defineSchema({
  accounts: defineTable({ number: v.number(), balance: v.number() }),
  items: defineTable({ key: v.number(), text: v.string() }).index("by_key", ["key"]),
  events: defineTable({ n: v.number(), text: v.string() }),
  messages: defineTable({ body: v.string(), likes: v.number() }),
  // Each pair has the same documents; the first of it also has a long history.
  jobs_consumed: job,
  jobs_fresh: job,
  keys_updated: counter,
  keys_fresh: counter,
  rows_small: row,
  rows_large: row,
});
