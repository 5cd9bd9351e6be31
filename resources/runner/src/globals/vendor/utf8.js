// Stands in for whatwg-url/lib/encoding.js, which makes a TextEncoder and a TextDecoder from the global object when it is loaded.
const { utf8Encode, utf8DecodeWithoutBOM } = use("encoding");

export { utf8Encode, utf8DecodeWithoutBOM };
