import { defineApp } from "convex/server";
import { v } from "convex/values";
import counter from "./counter/convex.config.js";

const app = defineApp({ env: { GREETING: v.string() } });
app.use(counter, { httpPrefix: "/counter/", env: { GREETING: app.env.GREETING } });
app.use(counter, { name: "second", env: { GREETING: "from the app" } });
export default app;
