"""The value model: kinds, codecs, order, limits, ids, validators, schemas and paths (``runtime.md`` sections 4 and 5)."""
