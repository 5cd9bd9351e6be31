// Request, Response and fetch (Fetch standard), as far as runtime.md 6.2 has them.
//
// A body is kept as what it was made from; a stream is made when somebody asks for one. The network is on the host (src/host_ops/fetch.mjs):
//   fetch         {id, url, method, headers, redirect, streamed} [body] -> {status, statusText, headers, url, redirected, nullBody}
//   fetch.write   {id} [chunk]      a chunk of a streamed request body     fetch.end {id}   fetch.fail {id}
//   fetch.read    {id} -> {done} [chunk]
//   fetch.abort   {id}
import { IncomingBody, bodyOf, extractBody, includeBody, initializeBody } from "./support/body.js";
import { platformClass, requireArguments, sendChunk, unimplementedGetters } from "./support/webidl.js";

const { Headers, headerPairs, headersOf } = use("headers");

const forbiddenMethods = new Set(["CONNECT", "TRACE", "TRACK"]);
const normalizedMethods = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]);
const nullBodyStatuses = new Set([101, 103, 204, 205, 304]);
const redirectModes = new Set(["error", "follow", "manual"]);
const redirectStatuses = new Set([301, 302, 303, 307, 308]);

function methodOf(value) {
  const text = String(value);
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text)) throw new TypeError(`'${text}' is not a valid HTTP method.`);
  const upper = text.toUpperCase();
  if (forbiddenMethods.has(upper)) throw new TypeError(`'${text}' HTTP method is unsupported.`);
  return normalizedMethods.has(upper) ? upper : text;
}

function signalOf(value, context) {
  if (value === null || value === undefined) return null;
  const { AbortSignal } = use("events");
  if (!(value instanceof AbortSignal)) throw new TypeError(`${context}: the signal is not of type 'AbortSignal'.`);
  return value;
}

let requestState;
let watchDisconnect;

class Request {
  #url;
  #method = "GET";
  #headers;
  #redirect = "follow";
  #source = null;
  #signal = null;
  /** Called once, with a function that aborts, when somebody asks an incoming request for its signal. */
  #watch = null;

  static {
    watchDisconnect = (request, watch) => {
      request.#watch = watch;
    };
    requestState = (request) => ({
      url: request.#url,
      method: request.#method,
      headers: request.#headers,
      redirect: request.#redirect,
      signal: request.#signal ?? request.#source,
    });
  }

  constructor(input, init = undefined) {
    requireArguments(arguments.length, 1, "Request");
    const original = typeof input === "object" && input !== null && #url in input ? input : null;
    if (original === null) this.#url = absoluteUrl(input);
    else this.#inherit(original);
    if (init?.method !== undefined) this.#method = methodOf(init.method);
    if (init?.redirect !== undefined) {
      if (!redirectModes.has(String(init.redirect))) throw new TypeError(`Request: '${init.redirect}' is not a redirect mode.`);
      this.#redirect = String(init.redirect);
    }
    if (init !== undefined && init !== null && "signal" in init && init.signal !== undefined) {
      this.#source = signalOf(init.signal, "Request");
      this.#watch = null;
    }
    this.#headers = new Headers(init?.headers ?? original?.headers);
    this.#fill(original, init);
  }

  #inherit(original) {
    this.#url = original.#url;
    this.#method = original.#method;
    this.#redirect = original.#redirect;
    this.#source = original.#signal ?? original.#source;
    this.#watch = original.#watch;
  }

  #fill(original, init) {
    const given = init?.body;
    const inherited = original !== null && bodyOf(original) !== null;
    const bodiless = this.#method === "GET" || this.#method === "HEAD";
    if (bodiless && ((given !== undefined && given !== null) || (given === undefined && inherited))) {
      throw new TypeError("Request with GET/HEAD method cannot have body.");
    }
    if (given !== undefined) {
      initializeBody(this, extractBody(given, "Request"), this.#headers);
    } else if (inherited) {
      initializeBody(this, bodyOf(original).take(), null);
    }
  }

  get method() {
    return this.#method;
  }

  get url() {
    return this.#url;
  }

  get headers() {
    return this.#headers;
  }

  get signal() {
    if (this.#signal === null) {
      const { AbortController, followingSignal } = use("events");
      if (this.#watch !== null) {
        const controller = new AbortController();
        this.#source = controller.signal;
        this.#watch((reason) => controller.abort(reason));
        this.#watch = null;
      }
      this.#signal = followingSignal(this.#source);
    }
    return this.#signal;
  }

  clone() {
    const copy = new Request(this.#url, {
      method: this.#method,
      headers: this.#headers,
      redirect: this.#redirect,
      signal: this.#signal ?? this.#source,
    });
    copy.#watch = this.#watch;
    const body = bodyOf(this);
    if (body !== null) initializeBody(copy, body.clone(), null);
    return copy;
  }
}

/** An absolute URL from what a script passed; relative ones have no base here. */
function absoluteUrl(input) {
  const text = String(input);
  const url = use("url").parseUrl(text);
  if (url === null) throw new TypeError("Invalid URL");
  if (url.username !== "" || url.password !== "") throw new TypeError("Request: the URL includes credentials.");
  return url.href;
}

let fill;

class Response {
  #status = 200;
  #statusText = "";
  #headers;
  #type = "default";
  #url = "";
  #redirected = false;

  static {
    fill = (response, fields) => {
      response.#status = fields.status;
      response.#statusText = fields.statusText ?? "";
      response.#headers = fields.headers;
      response.#type = fields.type;
      response.#url = fields.url ?? "";
      response.#redirected = fields.redirected ?? false;
      return response;
    };
  }

  constructor(body = undefined, init = undefined) {
    if (init !== undefined && init !== null && typeof init !== "object" && typeof init !== "function") {
      throw new TypeError("Response: parameter 2 is not a dictionary.");
    }
    const status = init?.status === undefined ? 200 : Math.trunc(Number(init.status));
    if (!(status >= 200 && status <= 599)) {
      throw new RangeError(`The status provided (${init.status}) is not equal to 101 and outside the range [200, 599].`);
    }
    const statusText = init?.statusText === undefined ? "" : String(init.statusText);
    if (/[^\t\x20-\x7e\x80-\xff]/.test(statusText)) throw new TypeError("Response: Invalid status text.");
    this.#status = status;
    this.#statusText = statusText;
    this.#headers = new Headers(init?.headers);
    // Components answer `new Response("", { status: 205 })`; the Fetch standard refuses even that, but there is nothing to send.
    const nothing = body === undefined || body === null || (body === "" && nullBodyStatuses.has(status));
    if (!nothing) {
      if (nullBodyStatuses.has(status)) throw new TypeError("Response with null body status cannot have body");
      initializeBody(this, extractBody(body, "Response"), this.#headers);
    }
  }

  static error() {
    return fill(new Response(), { status: 0, headers: headersOf([], { immutable: true }), type: "error" });
  }

  static redirect(url, status = 302) {
    requireArguments(arguments.length, 1, "Response.redirect");
    const target = use("url").parseUrl(String(url));
    if (target === null) throw new TypeError(`Invalid URL: '${url}'`);
    const code = Math.trunc(Number(status));
    if (!redirectStatuses.has(code)) throw new RangeError(`Invalid redirect status code: ${status}`);
    return fill(new Response(), {
      status: code,
      headers: headersOf([["location", target.href]], { immutable: true }),
      type: "default",
    });
  }

  static json(data, init = undefined) {
    requireArguments(arguments.length, 1, "Response.json");
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError("Response.json: The value is not JSON serializable.");
    const headers = new Headers(init?.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(text, { status: init?.status, statusText: init?.statusText, headers });
  }

  get type() {
    return this.#type;
  }

  get url() {
    const hash = this.#url.indexOf("#");
    return hash < 0 ? this.#url : this.#url.slice(0, hash);
  }

  get redirected() {
    return this.#redirected;
  }

  get status() {
    return this.#status;
  }

  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }

  get statusText() {
    return this.#statusText;
  }

  get headers() {
    return this.#headers;
  }

  clone() {
    const body = bodyOf(this);
    const parts = body === null ? null : body.clone();
    const copy = fill(new Response(), {
      status: this.#status,
      statusText: this.#statusText,
      headers: headersOf(headerPairs(this.#headers)),
      type: this.#type,
      url: this.#url,
      redirected: this.#redirected,
    });
    if (parts !== null) initializeBody(copy, parts, null);
    return copy;
  }
}

includeBody(Request);
includeBody(Response);
platformClass(Request, "Request");
platformClass(Response, "Response");
unimplementedGetters(Request, "Request", [
  "destination",
  "referrer",
  "referrerPolicy",
  "mode",
  "credentials",
  "cache",
  "redirect",
  "integrity",
  "keepalive",
  "isReloadNavigation",
  "isHistoryNavigation",
  "duplex",
]);

let lastId = 0;

/** Send what a streamed body yields; a failure of the stream fails the exchange. */
async function pump(stream, id) {
  const reader = stream.getReader();
  const json = JSON.stringify({ id });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const { json: answer } = await sendChunk("fetch.write", json, value);
      // The other side went away: what it answered is what counts.
      if (JSON.parse(answer).closed) {
        await reader.cancel();
        return;
      }
    }
    await bridge.hostOp("fetch.end", json);
  } catch (error) {
    await bridge.hostOp("fetch.fail", JSON.stringify({ id, message: String(error?.message ?? error) }));
    await reader.cancel(error).catch(() => undefined);
  }
}

function responseStream(id, signal) {
  const { ReadableStream } = use("streams");
  const json = JSON.stringify({ id });
  let controllerOf;
  const stop = () => {
    controllerOf.error(signal.reason);
    void bridge.hostOp("fetch.abort", json).catch(() => undefined);
  };
  return new ReadableStream(
    {
      type: "bytes",
      start(controller) {
        controllerOf = controller;
        signal?.addEventListener("abort", stop, { once: true });
      },
      async pull(controller) {
        let answer;
        try {
          answer = await bridge.hostOp("fetch.read", json);
        } catch (error) {
          signal?.removeEventListener("abort", stop);
          throw signal?.aborted ? signal.reason : error;
        }
        if (signal?.aborted) return;
        if (JSON.parse(answer.json).done) {
          signal?.removeEventListener("abort", stop);
          controller.close();
          controller.byobRequest?.respond(0);
        } else {
          controller.enqueue(new Uint8Array(answer.buffers[0]));
        }
      },
      async cancel() {
        signal?.removeEventListener("abort", stop);
        await bridge.hostOp("fetch.abort", json);
      },
    },
    { highWaterMark: 0 },
  );
}

function mapped(error) {
  return error?.errorName === "TypeError" ? new TypeError(error.message) : new Error(error?.message ?? "fetch failed");
}

async function exchange(request) {
  const { url, method, headers, redirect, signal } = requestState(request);
  const body = bodyOf(request);
  const id = ++lastId;
  const taken = body === null ? null : body.take();
  const bytes = taken === null ? null : taken.bytes();
  const streamed = taken !== null && bytes === null;
  const head = JSON.stringify({ id, url, method, headers: headerPairs(headers), redirect, streamed });
  const answered = bridge.hostOp("fetch", head, bytes === null ? [] : [bytes.slice().buffer]);
  if (streamed) void pump(taken.stream(), id);
  const answer = await untilAborted(answered, signal, id);
  const fields = JSON.parse(answer.json);
  const response = fill(new Response(), {
    status: fields.status,
    statusText: fields.statusText,
    headers: headersOf(fields.headers, { immutable: true }),
    type: "basic",
    url: fields.url,
    redirected: fields.redirected,
  });
  if (!fields.nullBody) initializeBody(response, extractBody(responseStream(id, signal), "Response"), null);
  return response;
}

/** The answer, or the signal's reason as soon as it aborts. */
function untilAborted(answered, signal, id) {
  if (signal === null) {
    return answered.catch((error) => {
      throw mapped(error);
    });
  }
  return new Promise((resolve, reject) => {
    const stop = () => {
      reject(signal.reason);
      void bridge.hostOp("fetch.abort", JSON.stringify({ id })).catch(() => undefined);
    };
    signal.addEventListener("abort", stop, { once: true });
    answered.then(
      (answer) => {
        signal.removeEventListener("abort", stop);
        resolve(answer);
      },
      (error) => {
        signal.removeEventListener("abort", stop);
        reject(mapped(error));
      },
    );
  });
}

async function fetch(input, init = undefined) {
  if (arguments.length === 0 || input === undefined) throw new TypeError("Request URL is undefined");
  const refusal = bridge.refusal("fetch()");
  if (refusal !== null) throw refusal;
  const request = new Request(input, init);
  if (!/^https?:/.test(request.url)) throw new TypeError("Unsupported URL scheme");
  const { signal } = requestState(request);
  if (signal?.aborted) throw signal.reason;
  return exchange(request);
}

/**
 * A Request that arrived from outside: its headers are kept as they came.
 * @param {(abort: (reason?: unknown) => void) => void} watch asked once somebody reads `request.signal`
 */
export function incomingRequest({ url, method, headers, body, watch }) {
  const init = { method, headers: headersOf(headers) };
  if (body !== null && method !== "GET" && method !== "HEAD") init.body = body;
  const request = new Request(url, init);
  watchDisconnect(request, watch);
  return request;
}

/** A body for `incomingRequest`; see IncomingBody. */
export const incomingBody = (read, cancel) => new IncomingBody(read, cancel);

/** Take the body of an outgoing Response. `{bytes}` when it is all there, `{stream}` when it is not, null without one. */
export function outgoingBody(response) {
  const source = bodyOf(response);
  if (source === null) return null;
  const taken = source.take();
  const bytes = taken.bytes();
  return bytes === null ? { stream: taken.stream() } : { bytes };
}

export { Request, Response, fetch };
