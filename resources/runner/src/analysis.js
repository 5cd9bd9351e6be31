(function analysis(record, tools, what, path) {
  "use strict";
  // Runs inside the context after the module's import phase. Returns JSON text: {ok: true, …} or {ok: false, code, message}; exceptions of user
  // code pass through. `text` fields are JSON texts that user code made.
  const { quote, parseJson, functionText } = tools;
  const failed = (code, message) => `{"ok":false,"code":${quote(code)},"message":${quote(message)}}`;
  const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

  function validator(exported, name, method, label) {
    const get = exported[method];
    if (get === undefined) return { __proto__: null, json: "null" };
    if (typeof get !== "function") return { __proto__: null, problem: `Invalid ${method} return value: ${path}:${name}.${method} is not a function.` };
    const text = get.call(exported);
    if (typeof text !== "string") return { __proto__: null, problem: `Invalid ${method} return value: ${path}:${name}.${method}() didn't return a string.` };
    let parsed;
    try {
      parsed = parseJson(text);
    } catch (error) {
      return { __proto__: null, problem: `Invalid JSON returned from ${path}:${name}.${method}(): ${error.message}` };
    }
    if (label === "args" && !(isObject(parsed) && (parsed.type === "object" || parsed.type === "any"))) {
      return {
        __proto__: null,
        problem: "Args validator must be an object or any",
      };
    }
    return { __proto__: null, json: label === "returns" && parsed === null ? "null" : quote(text) };
  }

  const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/;
  function nameProblem(name) {
    if (name.length > 64) return `Identifier is too long (${name.length} > maximum 64): ${name}`;
    if (/^_+$/.test(name)) return `Identifier ${name} cannot consist only of underscores`;
    if (identifier.test(name)) return null;
    if (!/^[A-Za-z_]/.test(name)) {
      return `Invalid first character '${name[0]}' in ${name}: Identifiers must start with an alphabetic character or underscore`;
    }
    return `Identifier ${name} has invalid character: Identifiers can only contain alphanumeric characters or underscores`;
  }

  function functions() {
    const namespace = record.namespace();
    let text = "";
    for (const name in namespace) {
      const exported = namespace[name];
      if (!isObject(exported)) continue;
      const flags = ("isQuery" in exported ? 1 : 0) + ("isMutation" in exported ? 1 : 0) + ("isAction" in exported ? 1 : 0);
      if (flags !== 1) continue;
      const isPublic = "isPublic" in exported;
      const isInternal = "isInternal" in exported;
      if (isPublic && isInternal) continue;
      const udfType = "isQuery" in exported ? "Query" : "isMutation" in exported ? "Mutation" : "Action";
      const problem = nameProblem(name);
      if (problem !== null) return failed("InvalidFunctionName", problem);
      const args = validator(exported, name, "exportArgs", "args");
      if (args.problem !== undefined) return failed("InvalidModules", args.problem);
      const returns = validator(exported, name, "exportReturns", "returns");
      if (returns.problem !== undefined) return failed("InvalidModules", returns.problem);
      const handler = "_handler" in exported ? exported._handler : exported;
      if (typeof handler !== "function") return failed("InvalidModules", `${path}:${name} is not a function.`);
      const visibility = isPublic ? '{"kind":"public"}' : isInternal ? '{"kind":"internal"}' : "null";
      text +=
        `${text === "" ? "" : ","}{"name":${quote(name)},"udfType":"${udfType}","visibility":${visibility},` +
        `"args":${args.json},"returns":${returns.json},"source":${quote(functionText(handler))}}`;
    }
    return `{"ok":true,"functions":[${text}],"httpRoutes":${path === "http.js" ? routes() : "null"},"crons":${path === "crons.js" ? crons() : "null"},"reuseContext":${namespace.experimental_reuseContext === true}}`;
  }

  class Problem {
    constructor(message) {
      this.message = message;
    }
  }

  function defaultExport() {
    const read = record.find("default");
    return read === undefined ? undefined : read();
  }

  function routes() {
    if (record.find("default") === undefined) throw new Problem(`Couldn't find default export in module "http.js".`);
    const router = defaultExport();
    if (!isObject(router)) throw new Problem("`convex/http.js` must have a default export of a Router.");
    if (router.isRouter !== true) throw new Problem("The default export of `convex/http.js` is not a Router.");
    const wrong = "The `getRoutes()` method of Router did not return the expected type. Was it overridden or is the `convex` package out of date?";
    if (typeof router.getRoutes !== "function") throw new Problem(wrong);
    const list = router.getRoutes();
    if (!Array.isArray(list)) throw new Problem(wrong);
    let text = "";
    for (let i = 0; i < list.length; i++) {
      const entry = list[i];
      if (!Array.isArray(entry) || typeof entry[0] !== "string" || typeof entry[1] !== "string") throw new Problem(wrong);
      const [route, method, endpoint] = entry;
      if (!/^(GET|POST|PUT|DELETE|OPTIONS|PATCH)$/.test(method)) throw new Problem(`${method} is not a routable HTTP method (one of GET, POST, PUT, DELETE, OPTIONS, PATCH)`);
      const handler = isObject(endpoint) && "_handler" in endpoint ? endpoint._handler : endpoint;
      text += `${text === "" ? "" : ","}{"path":${quote(route)},"method":${quote(method)},"source":${typeof handler === "function" ? quote(functionText(handler)) : "null"}}`;
    }
    return `[${text}]`;
  }

  function crons() {
    const exported = defaultExport();
    if (!isObject(exported)) throw new Problem("`convex/crons.js` must have a default export of a Crons object.");
    if (exported.isCrons !== true || typeof exported.export !== "function") throw new Problem("The default export of `convex/crons.js` is not a Crons object.");
    const text = exported.export();
    if (typeof text !== "string") throw new Problem("The `export()` method of Crons did not return a string.");
    parseJson(text);
    return text;
  }

  function schema() {
    if (record.find("default") === undefined) {
      return failed("MissingSchemaExportError", "Schema file missing default export. To learn more, see the schema documentation at https://docs.convex.dev/database/schemas.");
    }
    const exported = defaultExport();
    if (!isObject(exported) || typeof exported.export !== "function") {
      return failed(
        "InvalidSchemaExport",
        "Default export from schema file isn't a Convex schema. To learn more, see the schema documentation at https://docs.convex.dev/database/schemas.",
      );
    }
    const text = exported.export();
    if (typeof text !== "string") return failed("InvalidSchemaExport", "Default export from schema file isn't a Convex schema. `export()` did not return a string.");
    parseJson(text);
    return `{"ok":true,"text":${quote(text)}}`;
  }

  function auth() {
    if (record.find("default") === undefined) return failed("AuthConfigMissingExportError", "auth config file is missing default export. See https://docs.convex.dev/auth for more.");
    const text = quote(defaultExport());
    if (text === undefined) return failed("InvalidAuthConfig", "auth config file must export plain data. See https://docs.convex.dev/auth for more.");
    return `{"ok":true,"text":${quote(text)}}`;
  }

  function app() {
    const names = record.namespace();
    let count = 0;
    for (const _name in names) count++;
    if (record.find("default") === undefined || count !== 1) {
      return failed("InvalidConvexConfig", "convex.config.js must have a default export and no other export.");
    }
    const exported = defaultExport();
    if (!isObject(exported) || typeof exported.export !== "function") {
      return failed("InvalidConvexConfig", "The default export of convex.config.js must be made by `defineApp` or `defineComponent`.");
    }
    const text = quote(exported.export());
    if (text === undefined) return failed("InvalidDefinition", "The definition's `export()` returned nothing.");
    return `{"ok":true,"text":${quote(text)}}`;
  }

  try {
    return { __proto__: null, module: functions, schema, auth, app }[what]();
  } catch (error) {
    if (error instanceof Problem) return failed("InvalidModules", error.message);
    throw error;
  }
})
