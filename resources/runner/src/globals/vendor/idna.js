// Stands in for tr46: its tables (220 kB) are a group of their own, which is loaded for the first host name that needs them.
export const toASCII = (domain, options) => use("idna").toASCII(domain, options);
export const toUnicode = (domain, options) => use("idna").toUnicode(domain, options);
