// The functions of the demo. They were deployed as they stand here, without a bundler: see docs/deploy_api.md.
import { ConvexError, v } from "convex/values";
import { mutation, query } from "./_generated/server";

const SHOWN = 100;
const MAX_BODY = 500;
const MAX_AUTHOR = 40;

/** The last messages, oldest first. Every page that shows them is told when they change. */
export const list = query({
  args: {},
  handler: async (ctx) => {
    const newest = await ctx.db.query("messages").order("desc").take(SHOWN);
    return newest.reverse();
  },
});

/** Adds a message. A mutation is a transaction: all of it happens, or nothing. */
export const send = mutation({
  args: { author: v.string(), body: v.string() },
  handler: async (ctx, args) => {
    const author = args.author.trim().slice(0, MAX_AUTHOR);
    const body = args.body.trim();
    if (author === "" || body === "") throw new ConvexError("A message needs a name and a text.");
    if (body.length > MAX_BODY) throw new ConvexError(`A message may have up to ${MAX_BODY} characters.`);
    return await ctx.db.insert("messages", { author, body, likes: 0 });
  },
});

/** Adds one to a message's likes. Two people who click at once are both counted. */
export const like = mutation({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => {
    const message = await ctx.db.get(id);
    if (message === null) throw new ConvexError("This message is no longer there.");
    await ctx.db.patch(id, { likes: message.likes + 1 });
  },
});
