import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  ranked: defineTable({ rank: v.number(), label: v.string() }).index("by_rank", ["rank"]),
  events: defineTable({ at: v.commitTs(), name: v.string() }).index("by_at", ["at"]),
});
