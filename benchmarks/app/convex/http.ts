import { httpRouter } from "convex/server";
import { httpAction } from "./_generated/server";

const http = httpRouter();

/** What the load generator takes for a success. */
http.route({
  path: "/small",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    await request.text();
    return new Response('{"status":"success"}', { headers: { "Content-Type": "application/json" } });
  }),
});
http.route({ path: "/echo", method: "POST", handler: httpAction(async (ctx, request) => new Response(request.body)) });
http.route({
  path: "/made",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    let left = Number(await request.text()) * 16;
    const chunk = new Uint8Array(65536).fill(97);
    const pull = (controller: ReadableStreamDefaultController) => (left-- > 0 ? controller.enqueue(chunk) : controller.close());
    return new Response(new ReadableStream({ pull }));
  }),
});

export default http;
