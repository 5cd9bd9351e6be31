import { defineApp } from "convex/server";
import vault from "./vault/convex.config.js";

const app = defineApp();
app.use(vault);
export default app;
