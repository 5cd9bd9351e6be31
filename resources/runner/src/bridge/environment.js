// process.env.

const environmentName = /^[A-Za-z_]+[A-Za-z0-9_]*$/;
function readEnvironment(name) {
  if (name === "inspect") return () => "[process.env]";
  if (apply(regExpExec, environmentName, [name]) === null || name.length > 256) {
    throw new NativeError(
      `The environment variable name ${name} is invalid. Environment variable names must start with a letter or underscore, contain only letters, digits and underscores, and be at most 256 characters long.`,
    );
  }
  if (environmentRule === "refuse") throw new NativeError(`Environment variables unsupported ${where}`);
  readNames[name] = true;
  if (phase === "import") importNames[name] = true;
  environment ??= { __proto__: null, ...parseJson(environmentText) };
  const found = environment[name];
  if (found === undefined && environmentRule === "auth") {
    throw new NativeError(`Environment variable ${name} is used in auth config file but its value was not set`);
  }
  return found;
}
hidden(global, "process", {
  env: new Proxy(
    {},
    {
      __proto__: null,
      get: (_target, name) => (typeof name === "symbol" ? undefined : readEnvironment(name)),
      has: (_target, name) => typeof name !== "symbol" && readEnvironment(name) !== undefined,
      getOwnPropertyDescriptor(_target, name) {
        const found = typeof name === "symbol" ? undefined : readEnvironment(name);
        return found === undefined ? undefined : { value: found, writable: true, enumerable: true, configurable: true };
      },
      // Libraries assign to it while they load: that changes nothing, and is no error.
      set: () => true,
      defineProperty: () => true,
      deleteProperty: () => true,
    },
  ),
});
