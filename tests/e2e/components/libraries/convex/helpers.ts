import { asyncMap, pick } from "convex-helpers";
import { filter } from "convex-helpers/server/filter";
import { crud } from "convex-helpers/server/crud";
import { customCtx, customMutation, customQuery } from "convex-helpers/server/customFunctions";
import { paginator } from "convex-helpers/server/pagination";
import { defineRateLimits } from "convex-helpers/server/rateLimit";
import { getManyFrom, getManyViaOrThrow, getOneFromOrThrow } from "convex-helpers/server/relationships";
import { makeActionRetrier } from "convex-helpers/server/retries";
import { wrapDatabaseReader } from "convex-helpers/server/rowLevelSecurity";
import { SessionIdArg } from "convex-helpers/server/sessions";
import { mergedStream, stream } from "convex-helpers/server/stream";
import { Triggers } from "convex-helpers/server/triggers";
import { zCustomMutation, zid } from "convex-helpers/server/zod4";
import { doc } from "convex-helpers/validators";
import { paginationOptsValidator } from "convex/server";
import { v } from "convex/values";
import { z } from "zod";
import { internal } from "./_generated/api";
import type { DataModel } from "./_generated/dataModel";
import { action, internalAction, internalMutation, mutation as rawMutation, query } from "./_generated/server";
import schema from "./schema";

const triggers = new Triggers<DataModel>();
triggers.register("messages", async (ctx, change) => {
  const total = await ctx.db.query("totals").unique();
  const by = change.operation === "insert" ? 1 : change.operation === "delete" ? -1 : 0;
  if (total === null) await ctx.db.insert("totals", { messages: by });
  else await ctx.db.patch(total._id, { messages: total.messages + by });
});
const mutation = customMutation(rawMutation, customCtx(triggers.wrapDB));

export const seed = mutation({
  args: { authors: v.array(v.object({ name: v.string(), verified: v.boolean(), texts: v.array(v.string()) })) },
  handler: async (ctx, { authors }) => {
    const ids = await asyncMap(authors, ({ name, verified }) => ctx.db.insert("authors", { name, verified, secret: `${name}'s` }));
    for (const [i, { texts }] of authors.entries()) {
      for (const [j, text] of texts.entries()) await ctx.db.insert("messages", { author: ids[i], text, unread: j % 2 === 0 });
      await ctx.db.insert("follows", { from: ids[i], to: ids[(i + 1) % ids.length] });
    }
    return ids;
  },
});

export const removeOne = mutation({
  args: {},
  handler: async (ctx) => {
    const first = await ctx.db.query("messages").first();
    await ctx.db.delete(first!._id);
  },
});

export const total = query({ args: {}, handler: async (ctx) => (await ctx.db.query("totals").unique())?.messages ?? null });

export const relations = query({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const author = await getOneFromOrThrow(ctx.db, "authors", "name", name);
    const messages = await getManyFrom(ctx.db, "messages", "author", author._id);
    const followed = await getManyViaOrThrow(ctx.db, "follows", "to", "from", author._id);
    return { author: pick(author, ["name", "verified"]), texts: messages.map((one) => one.text), followed: followed.map((one) => one.name) };
  },
});

export const pages = query({
  args: { opts: paginationOptsValidator, author: v.optional(v.id("authors")) },
  handler: async (ctx, { opts, author }) => {
    const base = paginator(ctx.db, schema).query("messages");
    const found =
      author === undefined
        ? await base.order("desc").paginate(opts)
        : await base.withIndex("author", (q) => q.eq("author", author)).paginate(opts);
    return { ...found, page: found.page.map((one) => one.text) };
  },
});

export const merged = query({
  args: { authors: v.array(v.id("authors")), opts: paginationOptsValidator },
  handler: async (ctx, { authors, opts }) => {
    const each = authors.flatMap((author) =>
      [true, false].map((unread) =>
        stream(ctx.db, schema)
          .query("messages")
          .withIndex("author", (q) => q.eq("author", author).eq("unread", unread))
          .order("desc"),
      ),
    );
    const found = await mergedStream(each, ["_creationTime"])
      .filterWith(async (message) => (await ctx.db.get(message.author))!.verified)
      .paginate(opts);
    return { ...found, page: found.page.map((one) => one.text) };
  },
});

export const joined = query({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const texts = await stream(ctx.db, schema)
      .query("authors")
      .withIndex("name", (q) => q.gte("name", name))
      .flatMap(
        async (author) =>
          stream(ctx.db, schema)
            .query("messages")
            .withIndex("author", (q) => q.eq("author", author._id))
            .map(async (message) => ({ ...message, text: `${author.name}: ${message.text}` })),
        ["author", "unread", "_creationTime"],
      )
      .collect();
    return texts.map((one) => one.text);
  },
});

export const filtered = query({
  args: { text: v.string() },
  handler: async (ctx, { text }) => {
    const found = await filter(ctx.db.query("messages"), (one) => one.text.includes(text)).collect();
    return found.map((one) => one.text);
  },
});

const guarded = customQuery(
  query,
  customCtx(async (ctx) => ({
    db: wrapDatabaseReader(ctx, ctx.db, { authors: { read: async (_ctx, author) => author.verified } }),
  })),
);

export const visible = guarded({
  args: { id: v.id("authors") },
  handler: async (ctx, { id }) => [await ctx.db.get(id).then((one) => one !== null), (await ctx.db.query("authors").collect()).length],
});

export const visit = rawMutation({
  args: { ...SessionIdArg },
  handler: async (ctx, { sessionId }) => {
    const known = await ctx.db.query("sessions").withIndex("sessionId", (q) => q.eq("sessionId", sessionId)).unique();
    if (known !== null) await ctx.db.patch(known._id, { visits: known.visits + 1 });
    else await ctx.db.insert("sessions", { sessionId, visits: 1 });
    return (known?.visits ?? 0) + 1;
  },
});

const zMutation = zCustomMutation(mutation, { args: {}, input: async () => ({ ctx: {}, args: {} }) });

export const zoddy = zMutation({
  args: { email: z.email(), author: zid("authors").optional(), count: z.number().min(1).default(3) },
  returns: z.object({ email: z.string(), count: z.number() }),
  handler: async (_ctx, { email, count }) => ({ email: email.toLowerCase(), count }),
});

export const { create, read, update, destroy } = crud(schema, "authors", query, rawMutation);

export const whole = query({
  args: { name: v.string() },
  returns: v.union(v.null(), doc(schema, "authors")),
  handler: async (ctx, { name }) => ctx.db.query("authors").withIndex("name", (q) => q.eq("name", name)).unique(),
});

const { rateLimit } = defineRateLimits({ tries: { kind: "token bucket", rate: 2, period: 3600_000 } });

export const limited = rawMutation({ args: { key: v.string() }, handler: async (ctx, { key }) => (await rateLimit(ctx, { name: "tries", key })).ok });

export const { runWithRetries, retry } = makeActionRetrier("helpers:retry", { waitBackoff: 20, retryBackoff: 20, base: 1.2 });

export const attempt = internalMutation({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<number> => {
    await ctx.db.insert("attempts", { key });
    return (await ctx.db.query("attempts").withIndex("key", (q) => q.eq("key", key)).collect()).length;
  },
});

export const flaky = internalAction({
  args: { key: v.string() },
  handler: async (ctx, args): Promise<null> => {
    if ((await ctx.runMutation(internal.helpers.attempt, args)) < 3) throw new Error("not yet");
    return null;
  },
});

export const start = action({
  args: { key: v.string() },
  handler: async (ctx, args): Promise<void> => runWithRetries(ctx, internal.helpers.flaky, args),
});

export const attempts = query({
  args: { key: v.string() },
  handler: async (ctx, { key }) => (await ctx.db.query("attempts").withIndex("key", (q) => q.eq("key", key)).collect()).length,
});
