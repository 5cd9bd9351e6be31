import { httpRouter } from "convex/server";
import { httpAction } from "./_generated/server";

const http = httpRouter();

/** Who calls, or what `getUserIdentity` throws; the header stays readable. */
http.route({
  path: "/me",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const header = request.headers.get("authorization");
    try {
      return Response.json({ identity: await ctx.auth.getUserIdentity(), header });
    } catch (error) {
      return Response.json({ error: (error as Error).message, header });
    }
  }),
});

export default http;
