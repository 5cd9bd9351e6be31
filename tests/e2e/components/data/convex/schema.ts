import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  scores: defineTable({ player: v.string(), points: v.number() }),
  people: defineTable({ name: v.string(), letters: v.optional(v.number()), group: v.optional(v.string()) }).index("by_group", ["group"]),
});
