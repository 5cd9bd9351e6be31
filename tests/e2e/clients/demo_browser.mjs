// The demo's page in a real browser, driven over its debugging protocol: node demo_browser.mjs URL PORT
// Prints what the page shows when it is live, and after a message was sent by its form; then what the browser complained of.
const [url, port] = process.argv.slice(2);
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
const tab = await (await fetch(`http://127.0.0.1:${port}/json/new?about:blank`, { method: "PUT" })).json();
const socket = new WebSocket(tab.webSocketDebuggerUrl);
await new Promise((resolve) => (socket.onopen = resolve));
let last = 0;
const waiting = new Map();
const complaints = [];
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.id !== undefined) waiting.get(message.id)(message.result ?? message.error);
  else if (message.method === "Runtime.exceptionThrown") complaints.push(message.params.exceptionDetails.text);
  else if (message.method === "Log.entryAdded") complaints.push(message.params.entry.text);
};
const send = (method, params = {}) =>
  new Promise((resolve) => {
    waiting.set(++last, resolve);
    socket.send(JSON.stringify({ id: last, method, params }));
  });
const evaluate = async (expression) => (await send("Runtime.evaluate", { expression, returnByValue: true })).result?.value;
const until = async (expression) => {
  while ((await evaluate(expression)) !== true) await pause();
};
for (const domain of ["Runtime", "Log", "Page"]) await send(`${domain}.enable`);
await send("Page.navigate", { url: `${url}/demo` });
await until(`document.getElementById("status")?.textContent === "Live"`);
const show = async () => console.log(JSON.stringify({ shown: await evaluate(`[...document.querySelectorAll("#messages li p")].map((one) => one.textContent)`) }));
await show();
await evaluate(`document.getElementById("body").value = "from the browser"; document.getElementById("form").requestSubmit()`);
await until(`document.querySelectorAll("#messages li").length > 0 && document.querySelector("#messages li:last-child:not(.pending) p")?.textContent === "from the browser"`);
await show();
console.log(JSON.stringify({ complaints }));
process.exit(0);
