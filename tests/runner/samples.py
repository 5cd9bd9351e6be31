# ruff: noqa: E501 - JavaScript texts
"""A tiny stand-in for the registered functions of npm ``convex``, so that most tests need no bundle."""

REGISTER = """
const make = (flag, invoke) => (handler) => {
  const f = () => {};
  f[flag] = true;
  f.isPublic = true;
  f._handler = handler;
  f.exportArgs = () => '{"type":"any"}';
  f.exportReturns = () => "null";
  f[invoke] = invoke === "invokeAction" ? async (id, args) => encode(await handler(...JSON.parse(args))) : async (args) => encode(await handler(...JSON.parse(args)));
  return f;
};
const encode = (value) => JSON.stringify(value === undefined ? null : value);
export const query = make("isQuery", "invokeQuery");
export const mutation = make("isMutation", "invokeMutation");
export const action = make("isAction", "invokeAction");
export const call = async (op, args = {}) => JSON.parse(await Convex.asyncSyscall(op, JSON.stringify(args)));
export const sync = (op, args = {}) => JSON.parse(Convex.syscall(op, JSON.stringify(args)));
export async function* rows(query = {}) {
  const { queryId } = sync("1.0/queryStream", { query });
  try {
    for (;;) {
      const { value, done } = await call("1.0/queryStreamNext", { queryId });
      if (done) return;
      yield value;
    }
  } finally {
    sync("1.0/queryCleanup", { queryId });
  }
}
"""

HEAD = 'import { query, mutation, action, call, sync, rows } from "./register.js";\n'
