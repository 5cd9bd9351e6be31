// Files in HTTP actions: what is posted is stored, and can be fetched through one.
import { httpRouter } from "convex/server";
import { httpAction } from "./_generated/server";
import type { Id } from "./_generated/dataModel";

const http = httpRouter();

http.route({
  path: "/store",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const id = await ctx.storage.store(await request.blob());
    return Response.json({ id, url: await ctx.storage.getUrl(id) });
  }),
});

http.route({
  path: "/get",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const id = new URL(request.url).searchParams.get("id") as Id<"_storage">;
    const blob = await ctx.storage.get(id);
    return blob === null ? new Response("none", { status: 404 }) : new Response(blob);
  }),
});

http.route({
  path: "/mismatch",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    await ctx.storage.store(await request.blob(), { sha256: "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=" });
    return new Response("stored");
  }),
});

export default http;
