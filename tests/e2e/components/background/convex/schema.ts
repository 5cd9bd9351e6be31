import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  // What happened to work: one row for each run, completion or event of a key.
  events: defineTable({ key: v.string(), what: v.string(), value: v.optional(v.any()) }).index("by_key", ["key"]),
});
