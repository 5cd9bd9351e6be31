// Event, EventTarget, AbortController and AbortSignal (DOM standard, without a tree: capture and bubbling have nothing to do).
import { platformClass, requireArguments } from "./support/webidl.js";

const constants = { NONE: 0, CAPTURING_PHASE: 1, AT_TARGET: 2, BUBBLING_PHASE: 3 };

/** What the dispatch algorithm keeps about an event: not reachable from scripts. */
const states = new WeakMap();
const stateOf = (event) => {
  const state = states.get(event);
  if (state === undefined) throw new TypeError("Illegal invocation");
  return state;
};

/** Where time passes. Elsewhere an event that nobody asks for its time must not count as a look at the clock. */
const isLive = () => bridge.phase === "run" && (bridge.kind === "action" || bridge.kind === "httpAction");

class Event {
  constructor(type, init = {}) {
    requireArguments(arguments.length, 1, "Event");
    states.set(this, {
      type: String(type),
      bubbles: Boolean(init?.bubbles),
      cancelable: Boolean(init?.cancelable),
      composed: Boolean(init?.composed),
      timeStamp: isLive() ? bridge.performanceNow() : null,
      target: null,
      currentTarget: null,
      phase: constants.NONE,
      dispatching: false,
      stopped: false,
      stoppedAtOnce: false,
      canceled: false,
      passive: false,
      trusted: false,
    });
  }

  get type() {
    return stateOf(this).type;
  }

  get target() {
    return stateOf(this).target;
  }

  get srcElement() {
    return stateOf(this).target;
  }

  get currentTarget() {
    return stateOf(this).currentTarget;
  }

  composedPath() {
    const { currentTarget } = stateOf(this);
    return currentTarget === null ? [] : [currentTarget];
  }

  get eventPhase() {
    return stateOf(this).phase;
  }

  stopPropagation() {
    stateOf(this).stopped = true;
  }

  get cancelBubble() {
    return stateOf(this).stopped;
  }

  set cancelBubble(value) {
    if (value) stateOf(this).stopped = true;
  }

  stopImmediatePropagation() {
    const state = stateOf(this);
    state.stopped = true;
    state.stoppedAtOnce = true;
  }

  get bubbles() {
    return stateOf(this).bubbles;
  }

  get cancelable() {
    return stateOf(this).cancelable;
  }

  get returnValue() {
    return !stateOf(this).canceled;
  }

  set returnValue(value) {
    if (!value) this.preventDefault();
  }

  preventDefault() {
    const state = stateOf(this);
    if (state.cancelable && !state.passive) state.canceled = true;
  }

  get defaultPrevented() {
    return stateOf(this).canceled;
  }

  get composed() {
    return stateOf(this).composed;
  }

  get isTrusted() {
    return stateOf(this).trusted;
  }

  get timeStamp() {
    const state = stateOf(this);
    state.timeStamp ??= bridge.performanceNow();
    return state.timeStamp;
  }

  initEvent(type, bubbles = false, cancelable = false) {
    const state = stateOf(this);
    if (state.dispatching) return;
    Object.assign(state, { type: String(type), bubbles: Boolean(bubbles), cancelable: Boolean(cancelable) });
    Object.assign(state, { stopped: false, stoppedAtOnce: false, canceled: false, target: null });
  }
}

/** An exception in a listener does not reach the dispatcher: it ends the run as an unhandled rejection. */
const report = (error) => void Promise.reject(error);

function addListener(target, type, callback, { capture = false, once = false, passive = false, signal } = {}) {
  if (callback === null || callback === undefined) return;
  if (typeof callback !== "function" && typeof callback !== "object") {
    throw new TypeError("EventTarget.addEventListener: the listener is not an object.");
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError("EventTarget.addEventListener: options.signal is not of type 'AbortSignal'.");
  }
  if (signal?.aborted) return;
  const listeners = target.get(type) ?? [];
  if (listeners.some((one) => one.callback === callback && one.capture === capture)) return;
  target.set(type, [...listeners, { callback, capture, once, passive, removed: false }]);
}

function removeListener(target, type, callback, capture) {
  const listeners = target.get(type);
  if (listeners === undefined) return;
  const found = listeners.find((one) => one.callback === callback && one.capture === capture);
  if (found === undefined) return;
  found.removed = true;
  target.set(type, listeners.filter((one) => one !== found));
}

function listenerOptions(options) {
  if (typeof options === "boolean") return { capture: options };
  if (options === null || options === undefined) return { capture: false };
  const { capture, once, passive, signal } = options;
  return { capture: Boolean(capture), once: Boolean(once), passive: Boolean(passive), signal };
}

class EventTarget {
  /** type -> listeners; each change makes a new array, so a dispatch walks what was there when it began. */
  #listeners = new Map();

  addEventListener(type, callback, options = undefined) {
    requireArguments(arguments.length, 2, "EventTarget.addEventListener");
    const parsed = listenerOptions(options);
    addListener(this.#listeners, String(type), callback, parsed);
    parsed.signal?.addEventListener("abort", () => this.removeEventListener(type, callback, parsed), { once: true });
  }

  removeEventListener(type, callback, options = undefined) {
    requireArguments(arguments.length, 2, "EventTarget.removeEventListener");
    removeListener(this.#listeners, String(type), callback, listenerOptions(options).capture);
  }

  dispatchEvent(event) {
    requireArguments(arguments.length, 1, "EventTarget.dispatchEvent");
    const state = states.get(event);
    if (state === undefined) throw new TypeError("EventTarget.dispatchEvent: parameter 1 is not of type 'Event'.");
    if (state.dispatching) {
      const { DOMException } = use("dom_exception");
      throw new DOMException("The event is already being dispatched.", "InvalidStateError");
    }
    Object.assign(state, { dispatching: true, target: this, currentTarget: this, phase: constants.AT_TARGET });
    for (const listener of this.#listeners.get(state.type) ?? []) {
      if (state.stoppedAtOnce) break;
      if (listener.removed) continue;
      if (listener.once) removeListener(this.#listeners, state.type, listener.callback, listener.capture);
      state.passive = listener.passive;
      try {
        if (typeof listener.callback === "function") Reflect.apply(listener.callback, this, [event]);
        else listener.callback.handleEvent(event);
      } catch (error) {
        report(error);
      }
    }
    Object.assign(state, { dispatching: false, currentTarget: null, phase: constants.NONE });
    Object.assign(state, { passive: false, stopped: false, stoppedAtOnce: false });
    return !state.canceled;
  }
}

const constructing = Symbol("constructing");
let abort;
let follow;

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  #handler = null;
  #sources = new Set();
  #dependents = new Set();

  static {
    abort = (signal, reason) => {
      if (signal.#aborted) return;
      const { DOMException } = use("dom_exception");
      const given = reason === undefined ? new DOMException("The operation was aborted.", "AbortError") : reason;
      // Every dependent is aborted before any of them hears of it.
      const affected = [signal, ...[...signal.#dependents].filter((one) => !one.#aborted)];
      for (const one of affected) {
        one.#aborted = true;
        one.#reason = given;
      }
      for (const one of affected) {
        const event = new Event("abort");
        states.get(event).trusted = true;
        one.dispatchEvent(event);
      }
    };
    follow = (signal, source) => {
      const roots = source.#sources.size > 0 ? source.#sources : [source];
      for (const root of roots) {
        signal.#sources.add(root);
        root.#dependents.add(signal);
      }
    };
  }

  constructor(key) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
    super();
    super.addEventListener("abort", (event) => {
      if (typeof this.#handler === "function") Reflect.apply(this.#handler, this, [event]);
    });
  }

  static abort(reason = undefined) {
    const signal = new AbortSignal(constructing);
    abort(signal, reason);
    return signal;
  }

  static timeout(milliseconds) {
    requireArguments(arguments.length, 1, "AbortSignal.timeout");
    const delay = Number(milliseconds);
    if (!Number.isFinite(delay) || delay < 0) throw new TypeError("AbortSignal.timeout: the delay is out of range.");
    const signal = new AbortSignal(constructing);
    bridge.setTimer(() => {
      const { DOMException } = use("dom_exception");
      abort(signal, new DOMException("Signal timed out.", "TimeoutError"));
    }, Math.trunc(delay));
    return signal;
  }

  static any(signals) {
    requireArguments(arguments.length, 1, "AbortSignal.any");
    const list = [...signals];
    for (const one of list) {
      if (!(one instanceof AbortSignal)) throw new TypeError("AbortSignal.any: a member is not of type 'AbortSignal'.");
    }
    const result = new AbortSignal(constructing);
    const aborted = list.find((one) => one.aborted);
    if (aborted !== undefined) abort(result, aborted.reason);
    else for (const one of list) follow(result, one);
    return result;
  }

  get aborted() {
    return this.#aborted;
  }

  get reason() {
    return this.#reason;
  }

  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }

  get onabort() {
    return this.#handler;
  }

  set onabort(handler) {
    this.#handler = typeof handler === "function" || (typeof handler === "object" && handler !== null) ? handler : null;
  }
}

class AbortController {
  #signal = new AbortSignal(constructing);

  get signal() {
    return this.#signal;
  }

  abort(reason = undefined) {
    abort(this.#signal, reason);
  }
}

/** A signal that follows `source` (an AbortSignal or null): what a Request keeps. */
export function followingSignal(source) {
  const signal = new AbortSignal(constructing);
  if (source === null || source === undefined) return signal;
  if (source.aborted) abort(signal, source.reason);
  else follow(signal, source);
  return signal;
}

platformClass(Event, "Event");
platformClass(EventTarget, "EventTarget");
platformClass(AbortSignal, "AbortSignal");
platformClass(AbortController, "AbortController");
for (const [name, value] of Object.entries(constants)) {
  Object.defineProperty(Event, name, { value, enumerable: true });
  Object.defineProperty(Event.prototype, name, { value, enumerable: true });
}

export { AbortController, AbortSignal, Event, EventTarget };
