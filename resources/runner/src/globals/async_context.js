// AsyncLocalStorage and AsyncResource (node:async_hooks), as far as bundled libraries use them.
//
// V8 carries one small integer (`bridge.contextGet`) across awaits, reactions and timers. It is an index into `frames`, whose entries are immutable maps
// from storage to store. Frames that a run has made end with the run; where a context serves another one, their ids are not used again.

const frames = [new Map()];

let firstOfRun = -1; // id of the first frame made in the run phase

function addFrame(frame) {
  if (firstOfRun < 0 && bridge.phase === "run") firstOfRun = frames.length;
  return frames.push(frame) - 1;
}

bridge.onRenew(() => {
  if (firstOfRun >= 0) for (let id = firstOfRun; id < frames.length; id++) frames[id] = undefined;
  firstOfRun = -1;
});

const currentFrame = () => frames[bridge.contextGet()] ?? frames[0];

function frameWith(storage, store) {
  const frame = new Map(currentFrame());
  frame.set(storage, store);
  return addFrame(frame);
}

function runIn(id, callback, thisArgument, args) {
  const previous = bridge.contextGet();
  bridge.contextSet(id);
  try {
    return Reflect.apply(callback, thisArgument, args);
  } finally {
    bridge.contextSet(previous);
  }
}

class AsyncLocalStorage {
  #defaultValue;
  #name;

  constructor(options = {}) {
    this.#defaultValue = options?.defaultValue;
    this.#name = options?.name === undefined ? "" : String(options.name);
  }

  static bind(callback) {
    if (typeof callback !== "function") throw new TypeError('The "fn" argument must be of type function.');
    const id = bridge.contextGet();
    return function (...args) {
      return runIn(id, callback, this, args);
    };
  }

  static snapshot() {
    const id = bridge.contextGet();
    return (callback, ...args) => runIn(id, callback, undefined, args);
  }

  get name() {
    return this.#name;
  }

  getStore() {
    const frame = currentFrame();
    return frame.has(this) ? frame.get(this) : this.#defaultValue;
  }

  run(store, callback, ...args) {
    return runIn(frameWith(this, store), callback, undefined, args);
  }

  exit(callback, ...args) {
    return this.run(undefined, callback, ...args);
  }

  enterWith(store) {
    bridge.contextSet(frameWith(this, store));
  }

  disable() {
    const frame = new Map(currentFrame());
    frame.delete(this);
    bridge.contextSet(addFrame(frame));
  }
}

let resources = 1;

class AsyncResource {
  #context = bridge.contextGet();
  #id = ++resources;
  #type;

  constructor(type) {
    if (typeof type !== "string") throw new TypeError('The "type" argument must be of type string.');
    this.#type = type;
  }

  static bind(callback, type = undefined, thisArgument = undefined) {
    const resource = new AsyncResource(type ?? (callback.name || "bound-anonymous-fn"));
    return resource.bind(callback, thisArgument);
  }

  get type() {
    return this.#type;
  }

  asyncId() {
    return this.#id;
  }

  triggerAsyncId() {
    return 0;
  }

  emitDestroy() {
    return this;
  }

  runInAsyncScope(callback, thisArgument = undefined, ...args) {
    return runIn(this.#context, callback, thisArgument, args);
  }

  bind(callback, thisArgument = undefined) {
    if (typeof callback !== "function") throw new TypeError('The "fn" argument must be of type function.');
    const context = this.#context;
    return function (...args) {
      return runIn(context, callback, thisArgument === undefined ? this : thisArgument, args);
    };
  }
}

for (const [constructor, name] of [
  [AsyncLocalStorage, "AsyncLocalStorage"],
  [AsyncResource, "AsyncResource"],
]) {
  // The bundler renames a class that its own body mentions.
  Object.defineProperty(constructor, "name", { value: name, configurable: true });
}

export { AsyncLocalStorage, AsyncResource };
