// The rest of the global object.

function jsSyscall(name, args) {
  name = NativeString(name);
  if (jsHandlers[name] === undefined) {
    const group = groupOfJsSyscall[name];
    if (group !== undefined) jsHandlers[name] = use(group).jsSyscalls[name];
  }
  const handler = jsHandlers[name];
  if (typeof handler !== "function") return fatal(`Unknown JS syscall: ${name}`);
  if (phase === "import") throw new NativeError(`Syscall ${name} unsupported ${where}`);
  return handler(args);
}
const groupOfJsSyscall = create(null);
for (let i = 0; i < jsSyscallNames.length; i += 2) groupOfJsSyscall[jsSyscallNames[i]] = jsSyscallNames[i + 1];
hidden(global, "Convex", { syscall, asyncSyscall, jsSyscall });
hidden(global, "self", global);

hidden(
  global,
  "WeakRef",
  class WeakRef {
    #target;
    constructor(target) {
      if ((typeof target !== "object" || target === null) && typeof target !== "function" && typeof target !== "symbol") {
        throw new NativeTypeError("WeakRef: target must be an object");
      }
      this.#target = target;
    }
    deref() {
      return this.#target;
    }
    get [Symbol.toStringTag]() {
      return "WeakRef";
    }
  },
);
hidden(
  global,
  "FinalizationRegistry",
  class FinalizationRegistry {
    constructor(cleanup) {
      if (typeof cleanup !== "function") throw new NativeTypeError("FinalizationRegistry: cleanup must be callable");
    }
    register() {}
    unregister() {
      return false;
    }
    get [Symbol.toStringTag]() {
      return "FinalizationRegistry";
    }
  },
);
hidden(Atomics, "wait", { wait() { throw new NativeTypeError("Atomics.wait cannot be called in this context"); } }.wait);
delete Atomics.waitAsync;

// Asynchronous compilation would finish outside of every entry, at a time of its own: done synchronously behind a promise instead.
const { Module: WasmModule, Instance: WasmInstance } = WebAssembly;
const isModule = (candidate) => typeof candidate === "object" && candidate !== null && getPrototypeOf(candidate) === WasmModule.prototype;
hidden(WebAssembly, "compile", { async compile(bytes) { return new WasmModule(bytes); } }.compile);
hidden(
  WebAssembly,
  "instantiate",
  {
    async instantiate(source, imports) {
      if (isModule(source)) return new WasmInstance(source, imports);
      const module = new WasmModule(source);
      return { module, instance: new WasmInstance(module, imports) };
    },
  }.instantiate,
);
delete WebAssembly.compileStreaming;
delete WebAssembly.instantiateStreaming;
