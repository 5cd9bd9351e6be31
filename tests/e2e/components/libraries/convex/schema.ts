import { defineEnt, defineEntSchema, defineEntsFromTables, getEntDefinitions } from "convex-ents";
import { rateLimitTables } from "convex-helpers/server/rateLimit";
import { literals } from "convex-helpers/validators";
import { defineTable } from "convex/server";
import { v } from "convex/values";

// Ents: edges of every kind, unique fields, defaults, soft and scheduled deletion.
const ents = {
  users: defineEnt({ name: v.string() })
    .field("email", v.string(), { unique: true })
    .field("role", literals("reader", "writer"), { default: "reader" })
    .edge("profile", { ref: true })
    .edges("posts", { ref: true })
    .edges("followers", { to: "users", inverse: "followees" })
    .deletion("soft"),
  profiles: defineEnt({ bio: v.string() }).edge("user"),
  posts: defineEnt({ text: v.string() }).edge("user").edges("tags").deletion("scheduled"),
  tags: defineEnt({ name: v.string() }).edges("posts"),
};

// Plain tables, for convex-helpers.
const plain = {
  authors: defineTable({ name: v.string(), verified: v.boolean(), secret: v.optional(v.string()) }).index("name", ["name"]),
  messages: defineTable({ author: v.id("authors"), text: v.string(), unread: v.boolean() }).index("author", ["author", "unread"]),
  follows: defineTable({ from: v.id("authors"), to: v.id("authors") }).index("from", ["from"]),
  totals: defineTable({ messages: v.number() }),
  sessions: defineTable({ sessionId: v.string(), visits: v.number() }).index("sessionId", ["sessionId"]),
  attempts: defineTable({ key: v.string() }).index("key", ["key"]),
  ...rateLimitTables,
};

const schema = defineEntSchema({ ...ents, ...defineEntsFromTables(plain) });
export default schema;

export const entDefinitions = getEntDefinitions(schema);
