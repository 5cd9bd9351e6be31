const bytes = (text) => new TextEncoder().encode(text);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const { subtle } = crypto;
test("random values", () => {
  const array = new Uint32Array(4);
  assert(crypto.getRandomValues(array) === array && array.some((x) => x !== 0));
  assert(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()));
  assert(crypto.randomUUID() !== crypto.randomUUID());
  assert.throws(() => crypto.getRandomValues(new Float32Array(1)), "TypeMismatchError");
  assert.throws(() => crypto.getRandomValues(new Uint8Array(65537)), "QuotaExceededError");
  assert.throws(() => crypto.getRandomValues([1]), TypeError);
});
test("digest", async () => {
  const digest = await subtle.digest("SHA-256", bytes("abc"));
  assert(digest instanceof ArrayBuffer);
  assert.equal(hex(digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(hex(await subtle.digest({ name: "sha-1" }, new DataView(bytes("abc").buffer))), "a9993e364706816aba3e25717850c26c9cd0d89d");
  assert.equal((await subtle.digest("SHA-512", new Uint8Array(300000))).byteLength, 64);
  await assert.rejects(subtle.digest("MD5", bytes("x")), "NotSupportedError");
  await assert.rejects(subtle.digest("SHA-256", "text"), TypeError);
});
test("HMAC", async () => {
  const key = await subtle.importKey("raw", bytes("key"), { name: "HMAC", hash: "SHA-256" }, true, ["sign", "verify"]);
  assert(key instanceof CryptoKey && key.type === "secret" && key.extractable && key.algorithm.hash.name === "SHA-256");
  assert.same(key.usages, ["sign", "verify"]);
  const signature = await subtle.sign("HMAC", key, bytes("The quick brown fox jumps over the lazy dog"));
  assert.equal(hex(signature), "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8");
  assert.equal(await subtle.verify("HMAC", key, signature, bytes("The quick brown fox jumps over the lazy dog")), true);
  assert.equal(await subtle.verify("HMAC", key, signature, bytes("other")), false);
  assert.equal((await subtle.exportKey("jwk", key)).kty, "oct");
  assert.equal(hex(await subtle.exportKey("raw", key)), hex(bytes("key")));
});
test("AES", async () => {
  const key = await subtle.importKey("raw", new Uint8Array(16), "AES-GCM", false, ["encrypt", "decrypt"]);
  const algorithm = { name: "AES-GCM", iv: new Uint8Array(12), additionalData: bytes("more") };
  const sealed = await subtle.encrypt(algorithm, key, bytes("secret"));
  assert.equal(new TextDecoder().decode(await subtle.decrypt(algorithm, key, sealed)), "secret");
  await assert.rejects(subtle.decrypt({ ...algorithm, iv: new Uint8Array(12).fill(1) }, key, sealed), "OperationError");
  await assert.rejects(subtle.exportKey("raw", key), "InvalidAccessError");
  const cbc = await subtle.importKey("raw", new Uint8Array(32), "AES-CBC", false, ["encrypt"]);
  assert.equal((await subtle.encrypt({ name: "AES-CBC", iv: new Uint8Array(16) }, cbc, bytes("x"))).byteLength, 16);
});
test("derivation", async () => {
  const base = await subtle.importKey("raw", bytes("password"), "PBKDF2", false, ["deriveBits", "deriveKey"]);
  const bits = await subtle.deriveBits({ name: "PBKDF2", hash: "SHA-1", salt: bytes("salt"), iterations: 2 }, base, 160);
  assert.equal(hex(bits), "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
  const derived = await subtle.deriveKey({ name: "PBKDF2", hash: "SHA-256", salt: bytes("s"), iterations: 1 }, base, { name: "AES-CTR", length: 128 }, true, ["encrypt"]);
  assert.equal(derived.algorithm.length, 128);
});
test("signatures of pairs", async () => {
  const pair = await subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  assert(pair.publicKey instanceof CryptoKey && pair.privateKey.type === "private");
  const signature = await subtle.sign("Ed25519", pair.privateKey, bytes("x"));
  assert(await subtle.verify("Ed25519", pair.publicKey, signature, bytes("x")));
  const ec = await subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const made = await subtle.sign({ name: "ECDSA", hash: "SHA-256" }, ec.privateKey, bytes("x"));
  const imported = await subtle.importKey("jwk", await subtle.exportKey("jwk", ec.publicKey), { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"]);
  assert(await subtle.verify({ name: "ECDSA", hash: { name: "SHA-256" } }, imported, made, bytes("x")));
  const x1 = await subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
  const x2 = await subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
  const shared = await Promise.all([subtle.deriveBits({ name: "ECDH", public: x2.publicKey }, x1.privateKey, 256), subtle.deriveBits({ name: "ECDH", public: x1.publicKey }, x2.privateKey, 256)]);
  assert.equal(hex(shared[0]), hex(shared[1]));
});
test("RSA", async () => {
  const algorithm = { name: "RSASSA-PKCS1-v1_5", modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
  const pair = await subtle.generateKey(algorithm, true, ["sign", "verify"]);
  assert(pair.publicKey.algorithm.publicExponent instanceof Uint8Array && pair.publicKey.algorithm.publicExponent[2] === 1);
  const signature = await subtle.sign("RSASSA-PKCS1-v1_5", pair.privateKey, bytes("x"));
  assert(await subtle.verify("RSASSA-PKCS1-v1_5", pair.publicKey, signature, bytes("x")));
  const pkcs8 = await subtle.exportKey("pkcs8", pair.privateKey);
  assert(pkcs8 instanceof ArrayBuffer);
  const again = await subtle.importKey("pkcs8", pkcs8, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, false, ["sign"]);
  assert.equal(hex(await subtle.sign("RSASSA-PKCS1-v1_5", again, bytes("x"))), hex(signature));
});
test("refusals outside actions, and at import time", async () => {
  const key = await subtle.importKey("raw", bytes("key"), { name: "HMAC", hash: "SHA-256" }, true, ["sign"]);
  const text = "Can't use cryptographic randomness in queries and mutations. Please consider using an action.";
  host.set("mutation", "run");
  await assert.rejects(subtle.generateKey("Ed25519", true, ["sign"]), Error, text);
  await assert.rejects(subtle.generateKey({ name: "HMAC", hash: "SHA-1" }, true, ["sign"]), Error, text);
  await assert.rejects(subtle.encrypt("RSA-OAEP", key, bytes("x")), Error, text);
  await assert.rejects(subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, bytes("x")), Error, text);
  await assert.rejects(subtle.sign({ name: "rsa-pss", saltLength: 32 }, key, bytes("x")), Error, text);
  assert.equal((await subtle.sign("HMAC", key, bytes("x"))).byteLength, 32);
  host.set("query", "import");
  await assert.rejects(subtle.generateKey("Ed25519", true, ["sign"]), Error, "Cannot use cryptographic randomness at import time");
  assert.equal((await subtle.digest("SHA-256", bytes("x"))).byteLength, 32);
  host.set("action", "run");
});
test("illegal constructors, tags, what is left out", () => {
  for (const constructor of [Crypto, SubtleCrypto, CryptoKey]) assert.throws(() => new constructor(), TypeError, "Illegal constructor");
  assert(crypto instanceof Crypto && subtle instanceof SubtleCrypto);
  assert.equal(String(crypto) + String(subtle), "[object Crypto][object SubtleCrypto]");
  for (const name of ["wrapKey", "unwrapKey"]) assert.throws(() => subtle[name](), Error, `Not implemented: ${name} for SubtleCrypto. Consider`);
});
test("work that would hold a thread for long is refused", async () => {
  const base = await subtle.importKey("raw", bytes("p"), "PBKDF2", false, ["deriveBits"]);
  await assert.rejects(subtle.deriveBits({ name: "PBKDF2", hash: "SHA-1", salt: bytes("s"), iterations: 2e9 }, base, 160), "OperationError", "Too many iterations");
  const algorithm = { name: "RSA-PSS", modulusLength: 16384, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
  await assert.rejects(subtle.generateKey(algorithm, true, ["sign"]), "OperationError", "The modulus is too long");
});
test("keys of another run are not known here", async () => {
  await assert.rejects(subtle.sign("HMAC", { type: "secret" }, bytes("x")), TypeError, "CryptoKey");
});
