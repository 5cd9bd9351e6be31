import { type HonoWithConvex, HttpRouterWithHono } from "convex-helpers/server/hono";
import { corsRouter } from "convex-helpers/server/cors";
import { Hono } from "hono";
import { api } from "./_generated/api";
import { type ActionCtx, httpAction } from "./_generated/server";

const app: HonoWithConvex<ActionCtx> = new Hono();

app.get("/authors/:name", async (c) => {
  const found = await c.env.runQuery(api.helpers.whole, { name: c.req.param("name") });
  return found === null ? c.notFound() : c.json({ name: found.name, query: c.req.query("q") ?? null });
});

app.post("/echo", async (c) => c.text((await c.req.text()).toUpperCase(), 201, { "x-by": "hono" }));

const http = new HttpRouterWithHono(app);
const cors = corsRouter(http, { allowedOrigins: ["https://app.example"], allowCredentials: true });

cors.route({ path: "/shared", method: "GET", handler: httpAction(async () => new Response("shared")) });

export default http;
