import { httpRouter } from "convex/server";
import { api } from "./_generated/api";
import { httpAction } from "./_generated/server";

const http = httpRouter();
http.route({ path: "/hello", method: "GET", handler: httpAction(async () => new Response(`hello: ${process.env.GREETING}`)) });
http.route({
  path: "/add",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const value: number = await ctx.runMutation(api.counts.add, { name: await request.text(), by: 1 });
    return new Response(`${value} ${new URL(request.url).pathname}`);
  }),
});
export default http;
