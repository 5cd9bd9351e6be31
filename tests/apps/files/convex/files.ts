// File storage from queries, mutations and actions.
import { action, mutation, query } from "./_generated/server";
import { api } from "./_generated/api";
import { v } from "convex/values";

const file = v.id("_storage");

export const generateUploadUrl = mutation(async (ctx) => await ctx.storage.generateUploadUrl());

export const add = mutation({
  args: { file, caption: v.string() },
  handler: async (ctx, args) => await ctx.db.insert("pictures", args),
});

/** Every picture with its URL and what the system table says of its file. */
export const list = query(async (ctx) => {
  const pictures = await ctx.db.query("pictures").collect();
  return await Promise.all(
    pictures.map(async ({ file, caption }) => ({
      caption,
      url: await ctx.storage.getUrl(file),
      file: await ctx.db.system.get("_storage", file),
    })),
  );
});

export const url = query({ args: { id: v.string() }, handler: async (ctx, { id }) => await ctx.storage.getUrl(id) });

export const metadata = query({
  args: { id: v.string() },
  handler: async (ctx, { id }) => await ctx.storage.getMetadata(id),
});

export const system = query(async (ctx) => {
  const all = await ctx.db.system.query("_storage").collect();
  const newest = await ctx.db.system.query("_storage").order("desc").first();
  return {
    all: all.map((one) => one._id),
    newest: newest?._id ?? null,
    normalized: newest === null ? null : ctx.db.system.normalizeId("_storage", newest._id),
  };
});

export const systemPage = query({
  args: { cursor: v.union(v.string(), v.null()) },
  handler: async (ctx, { cursor }) => await ctx.db.system.query("_storage").paginate({ numItems: 1, cursor }),
});

export const refused = mutation({
  args: { file },
  handler: async (ctx, { file }) => {
    const texts: string[] = [];
    for (const attempt of [
      () => ctx.db.get(file as any),
      () => ctx.db.delete(file as any),
      () => ctx.db.patch(file as any, {}),
      () => ctx.db.insert("_storage" as any, {}),
    ]) {
      try {
        await attempt();
        texts.push("allowed");
      } catch (error) {
        texts.push((error as Error).message);
      }
    }
    return texts;
  },
});

export const remove = mutation({ args: { id: v.string() }, handler: async (ctx, { id }) => await ctx.storage.delete(id) });

/** Deletes in a nested mutation that fails: nothing may happen. */
export const removeAndFail = mutation({
  args: { id: v.string() },
  handler: async (ctx, { id }) => {
    await ctx.storage.delete(id);
    throw new Error("after all not");
  },
});

const pattern = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >> 8)) & 255);

/** Stores a blob and gets it back, all in one action. */
export const roundTrip = action({
  args: { size: v.number(), type: v.string() },
  handler: async (ctx, { size, type }) => {
    const bytes = pattern(size);
    const id = await ctx.storage.store(new Blob([bytes], { type }));
    const back = await ctx.storage.get(id);
    const got = new Uint8Array(await back!.arrayBuffer());
    const metadata = await ctx.storage.getMetadata(id);
    return {
      id,
      size: back!.size,
      type: back!.type,
      same: got.length === bytes.length && got.every((byte, i) => byte === bytes[i]),
      metadata,
      url: await ctx.storage.getUrl(id),
      byUuid: (await ctx.storage.get(metadata!.storageId as any))?.size,
      uploadUrl: await ctx.storage.generateUploadUrl(),
    };
  },
});

export const storeWithDigest = action({
  args: { text: v.string(), sha256: v.string() },
  handler: async (ctx, { text, sha256 }) => {
    try {
      return await ctx.storage.store(new Blob([text]), { sha256 });
    } catch (error) {
      return (error as Error).message;
    }
  },
});

/** Eight blobs at once. */
export const storeMany = action({
  args: { count: v.number(), size: v.number() },
  handler: async (ctx, { count, size }) => {
    const ids = await Promise.all(Array.from({ length: count }, () => ctx.storage.store(new Blob([pattern(size)]))));
    const blobs = await Promise.all(ids.map((id) => ctx.storage.get(id)));
    return { different: new Set(ids).size, bytes: blobs.reduce((sum, blob) => sum + blob!.size, 0) };
  },
});

export const getMissing = action({
  args: { id: v.string() },
  handler: async (ctx, { id }) => {
    const texts: unknown[] = [await ctx.storage.get(id), await ctx.storage.getUrl(id), await ctx.storage.getMetadata(id)];
    try {
      await ctx.storage.delete(id);
    } catch (error) {
      texts.push((error as Error).message);
    }
    return texts;
  },
});

export const bad = action({
  args: { ids: v.array(v.string()) },
  handler: async (ctx, { ids }) => {
    const texts: string[] = [];
    for (const id of ids) {
      for (const operation of [ctx.storage.getUrl, ctx.storage.getMetadata, ctx.storage.delete, ctx.storage.get]) {
        try {
          await operation(id as any);
          texts.push("no error");
        } catch (error) {
          texts.push((error as Error).message);
        }
      }
    }
    return texts;
  },
});

/** Does not wait for what it stores. */
export const storeUnawaited = action({
  args: { size: v.number() },
  handler: async (ctx, { size }) => {
    void ctx.storage.store(new Blob([pattern(size)]));
    return "done";
  },
});

/** Gets a file again and again, and keeps what it got or lets go of it. */
export const getOften = action({
  args: { id: v.string(), count: v.number(), keep: v.boolean() },
  handler: async (ctx, { id, count, keep }) => {
    const kept: Blob[] = [];
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const blob = (await ctx.storage.get(id))!;
      bytes += blob.size;
      if (keep) kept.push(blob);
    }
    return bytes + 0 * kept.length;
  },
});

export const getOnly = action({
  args: { id: v.string() },
  handler: async (ctx, { id }) => {
    try {
      return [(await ctx.storage.get(id))?.size ?? null];
    } catch (error) {
      return [(error as Error).message];
    }
  },
});

/** The calls that npm 1.48 makes in mutations. */
export const storeInMutation = mutation({
  args: { text: v.string(), fail: v.boolean() },
  handler: async (ctx, { text, fail }) => {
    const id = await ctx.storage.store(new Blob([text], { type: "text/plain" }));
    const back = await ctx.storage.get(id);
    const result = { id, text: await back!.text(), type: back!.type };
    if (fail) throw new Error("not stored");
    return result;
  },
});

export const viaAction = action({
  args: { text: v.string() },
  handler: async (ctx, { text }): Promise<unknown> => {
    const file = await ctx.storage.store(new Blob([text], { type: "text/plain" }));
    await ctx.runMutation(api.files.add, { file, caption: text });
    return file;
  },
});
