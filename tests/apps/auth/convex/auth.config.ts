import type { AuthConfig } from "convex/server";

declare const process: { env: Record<string, string | undefined> };

const cloud = process.env.CONVEX_CLOUD_URL!;

export default {
  providers: [
    { domain: process.env.ISSUER!, applicationID: "app" },
    {
      type: "customJwt",
      issuer: `${process.env.ISSUER!}/custom`,
      jwks: `${process.env.ISSUER!}/custom/keys`,
      algorithm: "ES256",
      applicationID: "app",
    },
    // The deployment's own tokens: ctx.auth.signJwt.
    { type: "customJwt", issuer: cloud, jwks: `${cloud}/.well-known/jwks.json`, algorithm: "ES256", applicationID: "own" },
  ],
} satisfies AuthConfig;
