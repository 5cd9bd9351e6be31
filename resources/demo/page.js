// The demo's page: a live query, two mutations with optimistic updates, and the state of the connection.
import { anyApi, ConvexClient } from "/demo/convex.js";

const api = anyApi;
const NAMES = ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Katherine", "Margaret", "Niklaus"];
const element = (id) => document.getElementById(id);
const client = new ConvexClient(location.origin);

/** What is shown now, by id: an element is made once and then only changed, so that screen readers speak new messages only. */
const shown = new Map();

function itemOf(message) {
  let item = shown.get(message._id);
  if (item === undefined) {
    const root = document.createElement("li");
    const author = document.createElement("b");
    const time = document.createElement("time");
    const body = document.createElement("p");
    const like = document.createElement("button");
    like.type = "button";
    root.append(author, time, body, like);
    item = { root, author, time, body, like };
    shown.set(message._id, item);
    like.addEventListener("click", () => act(client.mutation(api.messages.like, { id: message._id }, { optimisticUpdate: liked(message._id) })));
  }
  const at = new Date(message._creationTime);
  item.author.textContent = message.author;
  item.author.style.setProperty("--hue", String(hue(message.author)));
  item.time.dateTime = at.toISOString();
  item.time.textContent = at.toLocaleTimeString();
  item.body.textContent = message.body;
  item.like.textContent = `♥ ${message.likes}`;
  item.like.setAttribute("aria-label", `Like, ${message.likes} so far`);
  item.like.disabled = message.pending === true;
  item.root.classList.toggle("pending", message.pending === true);
  return item.root;
}

function render(messages) {
  const list = element("messages");
  const atEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
  const ids = new Set(messages.map((message) => message._id));
  for (const [id, item] of shown) {
    if (!ids.has(id)) {
      item.root.remove();
      shown.delete(id);
    }
  }
  let before = null;
  for (const message of messages) {
    const root = itemOf(message);
    const next = before === null ? list.firstChild : before.nextSibling;
    if (root !== next) list.insertBefore(root, next);
    before = root;
  }
  element("empty").hidden = messages.length > 0;
  if (atEnd) window.scrollTo(0, document.body.scrollHeight);
}

/** Shows the message at once, marked as pending, until the server's answer is in the list. */
function sent(author, body) {
  return (store) => {
    const messages = store.getQuery(api.messages.list, {});
    if (messages === undefined) return;
    const message = { _id: `pending-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`, _creationTime: Date.now(), author, body, likes: 0, pending: true };
    store.setQuery(api.messages.list, {}, [...messages, message]);
  };
}

function liked(id) {
  return (store) => {
    const messages = store.getQuery(api.messages.list, {});
    if (messages === undefined) return;
    store.setQuery(api.messages.list, {}, messages.map((one) => (one._id === id ? { ...one, likes: one.likes + 1 } : one)));
  };
}

function hue(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}

function problem(text) {
  element("problem").textContent = text;
  element("problem").hidden = text === "";
}

async function act(promise) {
  try {
    await promise;
    problem("");
  } catch (error) {
    problem(typeof error.data === "string" ? error.data : "That did not work. Try again.");
  }
}

function showState({ isWebSocketConnected, hasEverConnected, inflightMutations }) {
  const [state, text] = isWebSocketConnected
    ? inflightMutations > 0
      ? ["live", "Live – sending…"]
      : ["live", "Live"]
    : hasEverConnected
      ? ["lost", "Connection lost. Trying again…"]
      : ["connecting", "Connecting…"];
  element("status").dataset.state = state;
  if (element("status").textContent !== text) element("status").textContent = text;
}

element("author").value = sessionStorage.getItem("author") ?? NAMES[Math.floor(Math.random() * NAMES.length)];
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const author = element("author").value.trim();
  const body = element("body").value.trim();
  if (author === "" || body === "") return;
  sessionStorage.setItem("author", author);
  element("body").value = "";
  element("body").focus();
  act(client.mutation(api.messages.send, { author, body }, { optimisticUpdate: sent(author, body) }));
});
client.subscribeToConnectionState(showState);
client.onUpdate(api.messages.list, {}, render, () => problem("The messages could not be loaded."));
