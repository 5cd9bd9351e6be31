// Module records, namespaces, dynamic import.

const modules = new NativeMap(); // path -> record
const factories = create(null);
let factoryCount = 0;
let importing = 0; // 0 not begun, 1 pending, 2 done, 3 failed
let pendingImports = null; // dynamic imports that the host has not taken
let lastImport = null;
const dynamicImports = new NativeMap(); // id -> import
let nextImport = 1;
let importsInFlight = 0;

function record(path) {
  let found = apply(mapGet, modules, [path]);
  if (found === undefined) {
    let names = null;
    let namespace = null;
    found = {
      __proto__: null,
      thunks: null, // export name -> function that reads the local binding
      state: 0, // 0 not evaluated, 1 evaluated, 2 failed
      failure: undefined,
      register(thunks) {
        found.thunks = thunks;
      },
      /** All exports with their origins; given as a function because origins of a cycle do not exist yet. */
      resolve(make) {
        names = make;
      },
      find: (name) => (names === null ? undefined : names()[name]),
      namespace() {
        if (namespace === null) {
          namespace = create(null);
          const all = names();
          for (const name in all) defineProperty(namespace, name, { __proto__: null, get: all[name], enumerable: true, configurable: false });
          defineProperty(namespace, Symbol.toStringTag, { __proto__: null, value: "Module" });
          preventExtensions(namespace);
        }
        return namespace;
      },
      scope(getters) {
        const scope = create(null);
        for (const name in getters) defineProperty(scope, name, { __proto__: null, get: getters[name], enumerable: true });
        return scope;
      },
      dynamic(specifier) {
        const text = guarded(() => `${specifier}`);
        if (phase === "import" || !isLive() || text === undefined) {
          return apply(promiseReject, NativePromise, [new NativeTypeError("dynamic module import unsupported")]);
        }
        return new NativePromise((resolve, reject) => {
          const one = { __proto__: null, id: nextImport++, specifier: text, from: path, resolve, reject, next: null };
          if (pendingImports === null) pendingImports = one;
          else lastImport.next = one;
          lastImport = one;
          apply(mapSet, dynamicImports, [one.id, one]);
          importsInFlight++;
        });
      },
      meta() {
        throw new NativeTypeError("import.meta unsupported");
      },
    };
    apply(mapSet, modules, [path, found]);
  }
  return found;
}

/** Default exports without a name of their own are called "default". */
const nameDefault = (exported, local) => {
  if (typeof exported === "function") {
    const own = guarded(() => Object.getOwnPropertyDescriptor(exported, "name"));
    if (own !== undefined && own.configurable && own.value === local) defineProperty(exported, "name", { __proto__: null, value: "default", configurable: true });
  }
  return exported;
};

async function finishImport(promise) {
  try {
    await promise;
    importing = 2;
  } catch (error) {
    importing = 3;
    fail(error);
  }
}
