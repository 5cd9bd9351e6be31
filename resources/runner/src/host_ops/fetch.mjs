// Host half of fetch: one HTTP exchange, both bodies streamed, over node:http and node:https.
//
//   fetch        {id, url, method, headers, redirect, streamed} [body] -> {status, statusText, headers, url, redirected, nullBody}
//   fetch.write  {id} [chunk] -> {closed}   fetch.end {id}   fetch.fail {id, message}
//   fetch.read   {id} -> {done} [chunk]
//   fetch.abort  {id}
//
// node:http rather than Node's fetch, because the head of a response must arrive while the request body is still being sent, and because redirects
// have texts of their own (runtime.md 6.2).
import http from "node:http";
import https from "node:https";
import { createBrotliDecompress, createInflate, createUnzip } from "node:zlib";

const maximumRedirects = 20;
const redirectStatuses = new Set([301, 302, 303, 307, 308]);
const nullBodyStatuses = new Set([101, 103, 204, 205, 304]);
/** Headers that describe the connection or the framing: ours to set. */
const connectionHeaders = new Set(["connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]);
const credentialHeaders = new Set(["authorization", "cookie", "host", "proxy-authorization"]);
const contentHeaders = new Set(["content-encoding", "content-language", "content-length", "content-location", "content-type"]);
/** Exchanges of one run whose response has not ended yet. */
const maximumOpen = 1024;
/** Bytes of a response that are read before the script asks for them, so that a small body frees its socket. */
const readAheadBytes = 64 * 1024;

const agents = {
  "http:": new http.Agent({ keepAlive: true, maxFreeSockets: 64, timeout: 60_000 }),
  "https:": new https.Agent({ keepAlive: true, maxFreeSockets: 64, timeout: 60_000 }),
};
const clients = { "http:": http, "https:": https };
const empty = { json: "{}", buffers: [] };
/** The kinds that may use the network. The context refuses the others with their text; this is the wall behind it. */
const networkKinds = new Set(["action", "httpAction"]);

function typeError(message) {
  return Object.assign(new Error(message), { errorName: "TypeError" });
}

/** The error of a failed transport, as users read it. */
function transportError(error) {
  if (error.errorName !== undefined) return error;
  if (error.code === "ENOTFOUND" || error.code === "EAI_AGAIN") {
    return new Error(`dns error: failed to lookup address information: Name or service not known (${error.hostname})`);
  }
  const first = error instanceof AggregateError ? error.errors[0] : error;
  return new Error(first?.message || error.code || "connection failed");
}

function pairsOf(rawHeaders) {
  const pairs = [];
  for (let i = 0; i < rawHeaders.length; i += 2) pairs.push([rawHeaders[i].toLowerCase(), rawHeaders[i + 1]]);
  return pairs;
}

/** Readable content of a response without its content coding, and the headers that then hold. */
function decoded(response, headers) {
  const codings = (response.headers["content-encoding"] ?? "").split(",").map((one) => one.trim().toLowerCase()).filter(Boolean);
  const decoders = codings.map((coding) => {
    if (coding === "gzip" || coding === "x-gzip") return createUnzip();
    if (coding === "deflate") return createInflate();
    if (coding === "br") return createBrotliDecompress();
    return null;
  });
  if (decoders.length === 0 || decoders.includes(null)) return { content: response, headers };
  let content = response;
  for (const decoder of decoders.reverse()) {
    const from = content;
    from.on("error", (error) => decoder.destroy(error));
    content = from.pipe(decoder);
  }
  return { content, headers: headers.filter(([name]) => name !== "content-encoding" && name !== "content-length") };
}

class Exchange {
  #url;
  #method;
  #headers;
  #body;
  #redirect;
  #streamed;
  #redirects = 0;
  #request = null;
  #response = null;
  #content = null;
  #chunks = [];
  #ahead = 0;
  #ended = false;
  #readFailure = null;
  /** Resolves the promise that the reader, or the one who reads ahead, waits on. */
  #wakeReader = null;
  #wakeProducer = null;
  #failure = null;
  #finished = false;

  constructor({ url, method, headers, redirect, streamed }, body) {
    this.#url = new URL(url);
    this.#method = method;
    this.#headers = headers.filter(([name]) => !connectionHeaders.has(name));
    this.#body = body;
    this.#redirect = redirect;
    this.#streamed = streamed;
  }

  /** Follow redirects up to the response that counts. Its head as JSON. */
  async head() {
    for (;;) {
      const response = await this.#hop(true);
      const location = response.headers.location;
      if (!redirectStatuses.has(response.statusCode) || location === undefined || this.#redirect === "manual") {
        return this.#accept(response);
      }
      response.resume();
      this.#follow(response.statusCode, location);
    }
  }

  #follow(status, location) {
    if (this.#redirect === "error") throw new Error("fetch attempted redirect");
    if (++this.#redirects > maximumRedirects) throw new Error("fetch too many redirects");
    if (this.#streamed && status !== 303) throw new Error("fetch cannot redirect with streamed body");
    const next = URL.parse(location, this.#url.href);
    if (next === null || clients[next.protocol] === undefined) throw new Error("fetch redirected to an invalid URL");
    if (next.hash === "") next.hash = this.#url.hash;
    const changesMethod =
      (status === 303 && this.#method !== "GET" && this.#method !== "HEAD") ||
      ((status === 301 || status === 302) && this.#method === "POST");
    if (changesMethod) {
      this.#method = "GET";
      this.#body = null;
      this.#streamed = false;
      this.#headers = this.#headers.filter(([name]) => !contentHeaders.has(name));
    }
    if (next.origin !== this.#url.origin) this.#headers = this.#headers.filter(([name]) => !credentialHeaders.has(name));
    this.#url = next;
  }

  #options() {
    const headers = { __proto__: null };
    for (const [name, value] of this.#headers) (headers[name] ??= []).push(value);
    headers.accept ??= ["*/*"];
    headers["accept-encoding"] ??= ["gzip, deflate, br"];
    headers["user-agent"] ??= ["Convex/1.0"];
    if (this.#streamed) {
      if (headers["content-length"] === undefined) headers["transfer-encoding"] = ["chunked"];
    } else {
      delete headers["content-length"];
      const bodied = this.#method !== "GET" && this.#method !== "HEAD";
      if (this.#body !== null || (bodied && ["POST", "PUT", "PATCH"].includes(this.#method))) {
        headers["content-length"] = [String(this.#body?.byteLength ?? 0)];
      }
    }
    for (const name of ["host", "content-length", "user-agent"]) if (headers[name]?.length === 1) headers[name] = headers[name][0];
    return { method: this.#method, headers, agent: agents[this.#url.protocol] };
  }

  #hop(mayRetry) {
    return new Promise((resolve, reject) => {
      if (this.#finished) {
        reject(new Error("The exchange was aborted"));
        return;
      }
      let request;
      try {
        request = clients[this.#url.protocol].request(this.#url, this.#options());
      } catch (error) {
        reject(error instanceof TypeError ? typeError("Parsed Url is not a valid Uri") : transportError(error));
        return;
      }
      this.#request = request;
      request.on("response", (response) => {
        this.#response = response;
        // Whoever reads hears of errors too; without a listener one that nobody reads would end the process.
        response.on("error", (error) => {
          this.#failure ??= transportError(error);
        });
        resolve(response);
      });
      request.on("error", (error) => {
        this.#failure ??= transportError(error);
        // A kept connection that the server closes just as we use it says nothing about the request.
        if (mayRetry && request.reusedSocket && error.code === "ECONNRESET" && !this.#streamed && !this.#finished) {
          this.#failure = null;
          resolve(this.#hop(false));
        } else {
          reject(this.#failure);
        }
      });
      if (this.#streamed) {
        // flushHeaders writes UTF-8; a head with other bytes than ASCII leaves with the first chunk, as the Latin-1 that it is.
        if (this.#headers.every(([, value]) => /^[\x00-\x7f]*$/.test(value))) request.flushHeaders();
      } else request.end(this.#body ?? undefined);
    });
  }

  #accept(response) {
    const nullBody = nullBodyStatuses.has(response.statusCode) || this.#method === "HEAD";
    const raw = pairsOf(response.rawHeaders);
    const { content, headers } = nullBody ? { content: response, headers: raw } : decoded(response, raw);
    this.#content = content;
    void this.#readAhead(content);
    return {
      status: response.statusCode,
      statusText: response.statusMessage,
      headers,
      url: this.#url.href,
      redirected: this.#redirects > 0,
      nullBody,
    };
  }

  /** Send a chunk of a streamed body; answers when the socket takes more. */
  write(chunk) {
    const request = this.#request;
    if (this.#gone(request)) return Promise.resolve(true);
    if (request.write(chunk)) return Promise.resolve(false);
    return new Promise((resolve) => {
      const settle = () => {
        request.off("drain", settle);
        request.off("close", settle);
        resolve(this.#gone(request));
      };
      request.on("drain", settle);
      request.on("close", settle);
    });
  }

  #gone(request) {
    return request === null || request.destroyed || request.writableEnded || !this.#streamed;
  }

  end() {
    if (!this.#gone(this.#request)) this.#request.end();
  }

  /** The script's own body stream failed: the peer must not take what it got for the whole. */
  fail(message) {
    this.#failure ??= new Error(message);
    if (!this.#gone(this.#request)) this.#request.destroy(this.#failure);
  }

  async #readAhead(content) {
    try {
      for await (const chunk of content) {
        this.#chunks.push(chunk);
        this.#ahead += chunk.byteLength;
        this.#wakeReader?.();
        while (this.#ahead >= readAheadBytes && !this.#finished) {
          await new Promise((resolve) => {
            this.#wakeProducer = resolve;
          });
        }
      }
    } catch (error) {
      this.#readFailure = this.#failure ?? transportError(error);
      this.#response.destroy();
    }
    this.#ended = true;
    this.#wakeReader?.();
  }

  /** What has arrived of the response, at least one byte; null at its end. */
  async read() {
    while (this.#chunks.length === 0 && !this.#ended) {
      await new Promise((resolve) => {
        this.#wakeReader = resolve;
      });
    }
    if (this.#chunks.length > 0) {
      const bytes = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      this.#chunks = [];
      this.#ahead = 0;
      this.#wakeProducer?.();
      return bytes;
    }
    if (this.#readFailure !== null) throw this.#readFailure;
    return null;
  }

  /** Whether it still holds a connection. */
  get open() {
    return !this.#ended;
  }

  abort() {
    this.#finished = true;
    this.#wakeProducer?.();
    this.#content?.destroy();
    this.#response?.destroy();
    this.#request?.destroy();
  }
}

function exchangesOf(callState) {
  callState.exchanges ??= new Map();
  return callState.exchanges;
}

/** When the host was told to begin an exchange: at most 8 operations of an action are under way, so it may be late. */
function startOf(callState, id) {
  callState.starts ??= new Map();
  let start = callState.starts.get(id);
  if (start === undefined) {
    start = { begun: false, aborted: false, promise: null, resolve: null };
    start.promise = new Promise((resolve) => {
      start.resolve = resolve;
    });
    callState.starts.set(id, start);
  }
  return start;
}

/**
 * One operation of the fetch family; see the head of this file.
 * @param {{kind: string, exchanges?: Map<number, Exchange>}} callState
 */
export async function fetchOp(op, json, buffers, callState) {
  if (!networkKinds.has(callState.kind)) throw new Error("fetch() is for actions");
  const exchanges = exchangesOf(callState);
  const args = JSON.parse(json);
  if (op === "fetch") {
    const start = startOf(callState, args.id);
    start.begun = true;
    start.resolve();
    if (start.aborted) throw new Error("The exchange was aborted");
    if (exchanges.size >= maximumOpen && [...exchanges.values()].filter((one) => one.open).length >= maximumOpen) {
      throw new Error("Too many concurrent fetches");
    }
    const exchange = new Exchange(args, buffers[0] ?? null);
    exchanges.set(args.id, exchange);
    try {
      const head = await exchange.head();
      if (head.nullBody) exchanges.delete(args.id);
      return { json: JSON.stringify(head), buffers: [] };
    } catch (error) {
      exchange.abort();
      exchanges.delete(args.id);
      throw error;
    }
  }
  // A request may wait for its turn when its body is ready already.
  if (op !== "fetch.abort") await startOf(callState, args.id).promise;
  const exchange = exchanges.get(args.id);
  if (op === "fetch.write") return { json: JSON.stringify({ closed: exchange === undefined || (await exchange.write(buffers[0])) }), buffers: [] };
  if (op === "fetch.read") return readChunk(exchanges, args.id);
  if (op === "fetch.end") exchange?.end();
  else if (op === "fetch.fail") exchange?.fail(args.message);
  else if (op === "fetch.abort") {
    exchange?.abort();
    const start = startOf(callState, args.id);
    if (!start.begun) {
      start.aborted = true;
      start.resolve();
    }
    exchanges.delete(args.id);
  } else throw new Error(`Unknown host operation ${op}`);
  return empty;
}

async function readChunk(exchanges, id) {
  const exchange = exchanges.get(id);
  const chunk = exchange === undefined ? null : await exchange.read();
  if (chunk !== null) return { json: '{"done":false}', buffers: [chunk] };
  exchanges.delete(id);
  return { json: '{"done":true}', buffers: [] };
}

/** End the exchanges of a run that is over. */
export function disposeFetches(callState) {
  for (const exchange of callState.exchanges?.values() ?? []) exchange.abort();
  callState.exchanges = new Map();
}
