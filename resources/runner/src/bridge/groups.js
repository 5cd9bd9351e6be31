// The bridge object of the lazy globals, and their accessors.

const loaded = create(null);
function use(name) {
  const found = loaded[name];
  if (found !== undefined) return found;
  const make = groups[name];
  if (make === undefined) throw new NativeError(`There is no group of globals named ${name}`);
  return (loaded[name] = make(api, use));
}

const endCallbacks = { __proto__: null, count: 0 };
const renewCallbacks = { __proto__: null, count: 0 };
const jsHandlers = create(null);
const api = freeze({
  __proto__: null,
  get kind() {
    return kind;
  },
  get phase() {
    return phase;
  },
  hostOp,
  refusal,
  refuse(what) {
    const error = refusal(what);
    if (error !== null) throw error;
  },
  fatal,
  responseEnded: (streamId) => responseEnded(streamId),
  random(count) {
    const source = generator();
    const bytes = new NativeUint8Array(count);
    let word = 0;
    for (let i = 0; i < count; i++) {
      if ((i & 3) === 0) word = source.next32();
      bytes[i] = (word >>> ((i & 3) * 8)) & 255;
    }
    return bytes;
  },
  now: () => currentMs("Date"),
  performanceNow,
  timeOrigin: () => (importMs < 0 ? 0 : importMs),
  setTimer: (callback, ms) => addTimer("setTimeout", callback, ms, [], false),
  clearTimer,
  contextGet,
  contextSet,
  onEnd(callback) {
    endCallbacks[endCallbacks.count++] = callback;
  },
  onRenew(callback) {
    renewCallbacks[renewCallbacks.count++] = callback;
  },
  defineJsSyscall(name, handler) {
    jsHandlers[name] = handler;
  },
});

const lazyDescriptor = { __proto__: null, get: undefined, set: undefined, enumerable: false, configurable: true };
function defineLazily(name, group) {
  const accessors = {
    get() {
      const made = use(group)[name];
      hidden(global, name, made);
      return made;
    },
    set(replacement) {
      hidden(global, name, replacement);
    },
  };
  lazyDescriptor.get = accessors.get;
  lazyDescriptor.set = accessors.set;
  defineProperty(global, name, lazyDescriptor);
}
for (let i = 0; i < lazyNames.length; i += 2) defineLazily(lazyNames[i], lazyNames[i + 1]);
