// DOMException (Web IDL standard).
import { platformClass } from "./support/webidl.js";

const codes = {
  IndexSizeError: 1,
  HierarchyRequestError: 3,
  WrongDocumentError: 4,
  InvalidCharacterError: 5,
  NoModificationAllowedError: 7,
  NotFoundError: 8,
  NotSupportedError: 9,
  InUseAttributeError: 10,
  InvalidStateError: 11,
  SyntaxError: 12,
  InvalidModificationError: 13,
  NamespaceError: 14,
  InvalidAccessError: 15,
  TypeMismatchError: 17,
  SecurityError: 18,
  NetworkError: 19,
  AbortError: 20,
  URLMismatchError: 21,
  QuotaExceededError: 22,
  TimeoutError: 23,
  InvalidNodeTypeError: 24,
  DataCloneError: 25,
};

const constants = {
  INDEX_SIZE_ERR: 1,
  DOMSTRING_SIZE_ERR: 2,
  HIERARCHY_REQUEST_ERR: 3,
  WRONG_DOCUMENT_ERR: 4,
  INVALID_CHARACTER_ERR: 5,
  NO_DATA_ALLOWED_ERR: 6,
  NO_MODIFICATION_ALLOWED_ERR: 7,
  NOT_FOUND_ERR: 8,
  NOT_SUPPORTED_ERR: 9,
  INUSE_ATTRIBUTE_ERR: 10,
  INVALID_STATE_ERR: 11,
  SYNTAX_ERR: 12,
  INVALID_MODIFICATION_ERR: 13,
  NAMESPACE_ERR: 14,
  INVALID_ACCESS_ERR: 15,
  VALIDATION_ERR: 16,
  TYPE_MISMATCH_ERR: 17,
  SECURITY_ERR: 18,
  NETWORK_ERR: 19,
  ABORT_ERR: 20,
  URL_MISMATCH_ERR: 21,
  QUOTA_EXCEEDED_ERR: 22,
  TIMEOUT_ERR: 23,
  INVALID_NODE_TYPE_ERR: 24,
  DATA_CLONE_ERR: 25,
};

class DOMException extends Error {
  #name;
  #message;

  constructor(message = "", options = undefined) {
    super();
    this.#message = String(message);
    if (typeof options === "object" && options !== null) {
      this.#name = options.name === undefined ? "Error" : String(options.name);
      if ("cause" in options) {
        Object.defineProperty(this, "cause", { value: options.cause, configurable: true, writable: true });
      }
    } else {
      this.#name = options === undefined ? "Error" : String(options);
    }
    Error.captureStackTrace(this, new.target);
  }

  get name() {
    return this.#name;
  }

  get message() {
    return this.#message;
  }

  get code() {
    return Object.hasOwn(codes, this.#name) ? codes[this.#name] : 0;
  }
}

platformClass(DOMException, "DOMException");
const descriptors = {};
for (const name in constants) descriptors[name] = { value: constants[name], enumerable: true };
Object.defineProperties(DOMException, descriptors);
Object.defineProperties(DOMException.prototype, descriptors);

// Console lines show it as they show errors, which object-inspect tells by a string tag that is not ours to have.
Object.defineProperty(DOMException.prototype, Symbol.for("convex.inspect"), {
  value() {
    return `[${String(this)}]`;
  },
});

export { DOMException };
