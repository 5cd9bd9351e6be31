// A second wall behind the bridge: should a host object ever reach user code, its prototypes cannot be changed, and with
// --disallow-code-generation-from-strings the host's Function constructor compiles nothing.

/** Freezes the constructors and prototypes of this realm that every object leads to. Called once, when all host code is loaded. */
export function harden() {
  for (const constructor of [Object, Function, Array, Promise, RegExp, Map, Set, WeakMap, String, Number, Boolean, Symbol]) {
    Object.freeze(constructor.prototype);
    Object.freeze(constructor);
  }
  for (const error of [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError]) {
    // Their prototypes stay writable: Node sets name and message on instances it makes, which a frozen prototype would forbid.
    Object.freeze(error);
  }
  Object.freeze(Reflect);
  Object.freeze(JSON);
  Object.freeze(Math);
}
