// One tab of the demo: the served page in a DOM, with the real client and a real socket. Told what to do by lines on standard input:
// "say TEXT" sends a message by the form, "like N" presses the N-th like button, "state" prints what the page shows, "end" ends.
import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

const url = process.argv[2];
const get = async (path) => {
  const answer = await fetch(url + path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return await answer.text();
};
const dom = new JSDOM(await get("/demo"), { url: `${url}/demo`, pretendToBeVisual: true });
dom.window.scrollTo = () => {};
for (const name of ["window", "document", "location", "sessionStorage"]) globalThis[name] = dom.window[name] ?? dom.window;
// The files as they are served; only the import's address, which means nothing here, is another.
const module = (text) => `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`;
const client = module(await get("/demo/convex.js"));
await import(module((await get("/demo/page.js")).replace('"/demo/convex.js"', JSON.stringify(client))));

const element = (id) => document.getElementById(id);
const state = () => ({
  status: element("status").textContent,
  empty: !element("empty").hidden,
  problem: element("problem").hidden ? null : element("problem").textContent,
  messages: [...element("messages").children].map((item) => ({
    author: item.querySelector("b").textContent,
    body: item.querySelector("p").textContent,
    likes: item.querySelector("button").textContent,
    pending: item.classList.contains("pending"),
  })),
});
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(" ");
  if (command === "end") break;
  if (command === "say") {
    element("author").value = words[0];
    element("body").value = words.slice(1).join(" ");
    element("form").dispatchEvent(new dom.window.Event("submit", { cancelable: true, bubbles: true }));
  }
  if (command === "like") element("messages").children[Number(words[0])].querySelector("button").click();
  console.log(JSON.stringify(state()));
}
process.exit(0);
