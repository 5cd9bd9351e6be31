"""Users by their tokens: the config of providers, verification of JWTs, fetched keys, and the deployment's own signing key."""
