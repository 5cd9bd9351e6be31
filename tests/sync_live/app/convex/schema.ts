import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  accounts: defineTable({ n: v.number(), balance: v.number(), version: v.number() }).index("by_n", ["n"]),
  // One row: how many transfers have been committed.
  counter: defineTable({ value: v.number() }),
  // One row for each mutation that was applied, by the tag that its client gave it.
  applied: defineTable({ client: v.string(), tag: v.string(), seq: v.union(v.number(), v.null()) })
    .index("by_client", ["client"])
    .index("by_tag", ["tag"]),
});
