// Serves page.jsx, bundled, on a port of its own: another origin than the server's. Prints what the page says it has shown.
import { createServer } from "node:http";
import { build } from "esbuild";

const bundle = await build({
  entryPoints: ["page.jsx"],
  bundle: true,
  write: false,
  format: "iife",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
});
const script = bundle.outputFiles[0].text.replaceAll("</script", "<\\/script");
const html = `<!doctype html><meta charset=utf-8><div id=root></div><script>window.BANK_URL=${JSON.stringify(process.argv[2])};${script}</script>`;
const server = createServer((request, response) => {
  if (request.url === "/shown") {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      console.log(body);
      response.end();
    });
    return;
  }
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(html);
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ page: `http://127.0.0.1:${server.address().port}/` })));
