// Preloaded into the CLI (NODE_OPTIONS=--require): a network on which no host but this machine has an address.
// Names that were asked for are appended to the file OFFLINE_LOG, one a line.
const dns = require("node:dns");
const fs = require("node:fs");
const net = require("node:net");

const LOCAL = new Set(["localhost", "127.0.0.1", "::1"]);
const lookup = dns.lookup;

dns.lookup = function (host, options, done) {
  if (LOCAL.has(host) || net.isIP(host)) return lookup.call(dns, host, options, done);
  fs.appendFileSync(process.env.OFFLINE_LOG, `${host}\n`);
  const error = Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), {
    code: "ENOTFOUND",
    syscall: "getaddrinfo",
    hostname: host,
  });
  process.nextTick(typeof options === "function" ? options : done, error);
};
