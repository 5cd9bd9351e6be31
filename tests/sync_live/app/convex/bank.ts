// A bank whose invariants hold at every commit: the balances sum up to what they were, and every transfer raises the
// counter by one and the versions of two accounts by one each, so the versions sum up to twice the counter.
import { actionGeneric, anyApi, internalQueryGeneric, mutationGeneric, paginationOptsValidator, queryGeneric } from "convex/server";
import { ConvexError, v } from "convex/values";

export const open = mutationGeneric({
  args: { accounts: v.number(), balance: v.number() },
  handler: async (ctx, { accounts, balance }) => {
    for (let n = 0; n < accounts; n++) await ctx.db.insert("accounts", { n, balance, version: 0 });
    await ctx.db.insert("counter", { value: 0 });
    return null;
  },
});

const account = async (ctx: any, n: number) =>
  await ctx.db
    .query("accounts")
    .withIndex("by_n", (q: any) => q.eq("n", n))
    .unique();

export const transfer = mutationGeneric({
  args: { client: v.string(), tag: v.string(), from: v.number(), to: v.number(), amount: v.number() },
  handler: async (ctx, { client, tag, from, to, amount }) => {
    if (amount < 0) throw new ConvexError({ code: "NEGATIVE", amount });
    const giver = await account(ctx, from);
    await ctx.db.patch(giver._id, { balance: giver.balance - amount, version: giver.version + 1 });
    const taker = await account(ctx, to);
    await ctx.db.patch(taker._id, { balance: taker.balance + amount, version: taker.version + 1 });
    const counter = await ctx.db.query("counter").unique();
    await ctx.db.patch(counter!._id, { value: counter!.value + 1 });
    await ctx.db.insert("applied", { client, tag, seq: counter!.value + 1 });
    return counter!.value + 1;
  },
});

export const note = mutationGeneric({
  args: { client: v.string(), tag: v.string() },
  handler: async (ctx, { client, tag }) => {
    await ctx.db.insert("applied", { client, tag, seq: null });
    return tag;
  },
});

export const balance = queryGeneric({
  args: { n: v.number() },
  handler: async (ctx, { n }) => {
    const { balance, version } = await account(ctx, n);
    return { balance, version };
  },
});

export const counter = queryGeneric({
  args: {},
  handler: async (ctx) => (await ctx.db.query("counter").unique())!.value,
});

// Everything in one query, and slower than the others by *spin* thousands of rounds of arithmetic.
export const audit = queryGeneric({
  args: { spin: v.number() },
  handler: async (ctx, { spin }) => {
    const accounts = await ctx.db.query("accounts").collect();
    const counter = await ctx.db.query("counter").unique();
    let x = 1;
    for (let i = 0; i < spin * 1000; i++) x = (x * 1103515245 + 12345) % 2147483648;
    return {
      counter: counter!.value,
      balances: accounts.reduce((sum, a) => sum + a.balance, 0),
      versions: accounts.reduce((sum, a) => sum + a.version, 0),
      odd: x < 0,
    };
  },
});

export const mine = queryGeneric({
  args: { client: v.string() },
  handler: async (ctx, { client }) =>
    (
      await ctx.db
        .query("applied")
        .withIndex("by_client", (q) => q.eq("client", client))
        .collect()
    ).map((row) => row.tag),
});

export const history = queryGeneric({
  args: { paginationOpts: paginationOptsValidator },
  handler: async (ctx, { paginationOpts }) => await ctx.db.query("applied").order("desc").paginate(paginationOpts),
});

export const blob = queryGeneric({
  args: { bytes: v.number(), key: v.number() },
  handler: async (ctx, { bytes, key }) => {
    const counter = await ctx.db.query("counter").unique();
    return `${counter!.value}:${key}:`.padEnd(bytes, "x");
  },
});

export const fixed = queryGeneric({ args: { n: v.number() }, handler: async (_ctx, { n }) => n });

export const fails = queryGeneric({
  args: { when: v.number() },
  handler: async (ctx, { when }) => {
    const counter = await ctx.db.query("counter").unique();
    if (counter!.value % 2 === when) throw new ConvexError({ code: "PARITY", value: counter!.value });
    return counter!.value;
  },
});

export const whoami = queryGeneric({ args: {}, handler: async (ctx) => await ctx.auth.getUserIdentity() });

export const secret = internalQueryGeneric({ args: {}, handler: async () => "for admins" });

export const echo = actionGeneric({
  args: { value: v.any(), fail: v.optional(v.boolean()) },
  handler: async (ctx, { value, fail }) => {
    if (fail) throw new ConvexError({ code: "ECHO", value });
    return { value, counter: await ctx.runQuery(anyApi.bank.counter, {}) };
  },
});
