import { v } from "convex/values";
import { mutation, query } from "./functions";

export const addUser = mutation({
  args: { name: v.string(), email: v.string(), bio: v.string() },
  handler: async (ctx, { name, email, bio }) => {
    const user = await ctx.table("users").insert({ name, email, role: "writer" }).get();
    await ctx.table("profiles").insert({ bio, userId: user._id });
    return user.role;
  },
});

export const post = mutation({
  args: { email: v.string(), text: v.string(), tags: v.array(v.string()) },
  handler: async (ctx, { email, text, tags }) => {
    const user = await ctx.table("users").getX("email", email);
    const tagIds = [];
    for (const name of tags) {
      const known = await ctx.table("tags").filter((q) => q.eq(q.field("name"), name)).first();
      tagIds.push(known?._id ?? (await ctx.table("tags").insert({ name })));
    }
    return await ctx.table("posts").insert({ text, userId: user._id, tags: tagIds });
  },
});

export const follow = mutation({
  args: { from: v.string(), to: v.string() },
  handler: async (ctx, { from, to }) => {
    const followed = await ctx.table("users").getX("email", to);
    const follower = await ctx.table("users").getX("email", from);
    await followed.patch({ followers: { add: [follower._id] } });
  },
});

export const retag = mutation({
  args: { id: v.id("posts"), remove: v.string() },
  handler: async (ctx, { id, remove }) => {
    const post = await ctx.table("posts").getX(id);
    const tag = (await post.edge("tags")).find((one) => one.name === remove)!;
    await post.patch({ text: `${post.text}!`, tags: { remove: [tag._id] } });
  },
});

export const show = query({
  args: { email: v.string() },
  handler: async (ctx, { email }) => {
    const user = await ctx.table("users").getX("email", email);
    const posts = await user.edge("posts").map(async (one) => [one.text, ...(await one.edge("tags")).map((tag) => tag.name)]);
    return {
      bio: (await user.edgeX("profile")).bio,
      posts,
      followers: (await user.edge("followers")).map((one) => one.name),
      followees: (await user.edge("followees")).map((one) => one.name),
      deleted: user.deletionTime !== undefined,
    };
  },
});

export const tagged = query({
  args: { name: v.string() },
  handler: async (ctx, { name }) =>
    await ctx.table("tags").filter((q) => q.eq(q.field("name"), name)).firstX().edge("posts").map((one) => one.text),
});

export const page = query({
  args: { cursor: v.union(v.string(), v.null()) },
  handler: async (ctx, { cursor }) => {
    const { page, isDone, continueCursor } = await ctx.table("users").order("desc").paginate({ numItems: 2, cursor });
    return { names: page.map((one) => one.name), isDone, continueCursor };
  },
});

export const deletePost = mutation({ args: { id: v.id("posts") }, handler: async (ctx, { id }) => void (await ctx.table("posts").getX(id).delete()) });

export const deleteUser = mutation({
  args: { email: v.string() },
  handler: async (ctx, { email }) => void (await ctx.table("users").getX("email", email).delete()),
});

export const countPosts = query({ args: {}, handler: async (ctx) => (await ctx.table("posts")).length });
