// Compiled inside each context and run before any other code there. `host*` are the only host functions that exist in a context: they take and return
// numbers, never leave this closure, and are called directly. Everything that user code could replace is captured here first, and
// internal lists are linked nodes or null-prototype objects, so that patched prototypes see and change nothing.
const { apply, construct, defineProperty, getPrototypeOf } = Reflect;
const { create, freeze, preventExtensions } = Object;
const objectToString = Object.prototype.toString;
const { hasOwnProperty } = Object.prototype;
const functionToString = Function.prototype.toString;
const NativePromise = Promise;
const promiseReject = Promise.reject;
const NativeError = Error;
const NativeTypeError = TypeError;
const NativeRangeError = RangeError;
const NativeString = String;
const NativeNumber = Number;
const { floor } = Math;
const { isArray } = Array;
const isNativeError = Error.isError;
const parseJson = JSON.parse;
const quote = JSON.stringify;
const NativeDate = Date;
const dateNow = Date.now;
const NativeMap = Map;
const mapGet = Map.prototype.get;
const mapSet = Map.prototype.set;
const mapDelete = Map.prototype.delete;
const NativeWeakMap = WeakMap;
const weakMapGet = WeakMap.prototype.get;
const weakMapSet = WeakMap.prototype.set;
const NativeUint8Array = Uint8Array;
const NativeUint32Array = Uint32Array;
const NativeArrayBuffer = ArrayBuffer;
const arrayBufferSlice = ArrayBuffer.prototype.slice;
const charCodeAt = String.prototype.charCodeAt;
const indexOf = String.prototype.indexOf;
const startsWith = String.prototype.startsWith;
const endsWith = String.prototype.endsWith;
const slice = String.prototype.slice;
const regExpExec = RegExp.prototype.exec;
const global = globalThis;

const has = (text, part) => apply(indexOf, text, [part]) >= 0;
// One descriptor for all: objects without a prototype are slow to make, and this is done for every global of every context.
const hiddenDescriptor = { __proto__: null, value: undefined, writable: true, enumerable: false, configurable: true };
const hidden = (target, name, value) => {
  hiddenDescriptor.value = value;
  defineProperty(target, name, hiddenDescriptor);
  hiddenDescriptor.value = undefined;
};

// A host function that runs out of stack throws an error of the host's realm: it must not get past here.
const contextGet = () => {
  try {
    return hostContextGet();
  } catch {
    throw new NativeRangeError("Maximum call stack size exceeded");
  }
};
const contextSet = (id) => {
  try {
    hostContextSet(id >>> 0);
  } catch {
    throw new NativeRangeError("Maximum call stack size exceeded");
  }
};
