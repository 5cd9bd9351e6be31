import GitHub from "@auth/core/providers/github";
import { Anonymous } from "@convex-dev/auth/providers/Anonymous";
import { Email } from "@convex-dev/auth/providers/Email";
import { Password } from "@convex-dev/auth/providers/Password";
import { convexAuth } from "@convex-dev/auth/server";
import { makeFunctionReference } from "convex/server";

// A provider that keeps its mails in a table, for tests to read.
const mailer = (id: string) =>
  Email({
    id,
    maxAge: 600,
    generateVerificationToken: async () => String(crypto.getRandomValues(new Uint32Array(1))[0]).padStart(10, "0").slice(0, 8),
    // @ts-expect-error The context comes as a second argument that the type does not name.
    sendVerificationRequest: async ({ identifier, token }, ctx) => {
      await ctx.runMutation(makeFunctionReference<"mutation">("users:keepMail"), { to: identifier, code: token });
    },
  });

export const { auth, signIn, signOut, store, isAuthenticated } = convexAuth({
  providers: [Anonymous, GitHub, mailer("code"), Password({ reset: mailer("reset") })],
});
