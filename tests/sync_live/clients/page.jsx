import { createRoot } from "react-dom/client";
import { useEffect, useRef } from "react";
import { ConvexProvider, ConvexReactClient, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";

const client = new ConvexReactClient(window.BANK_URL, { skipConvexDeploymentUrlCheck: true });

function Bank() {
  const mine = useQuery(api.bank.mine, { client: "browser" });
  const note = useMutation(api.bank.note);
  const sent = useRef(0);
  useEffect(() => {
    if (mine !== undefined && mine.length === sent.current && sent.current < 2) {
      void note({ client: "browser", tag: `browser.${sent.current++}` });
    }
  }, [mine]);
  if (mine === undefined) return <p data-state="loading" />;
  return <p data-state={mine.length >= 2 ? "done" : "waiting"}>{mine.join(",")}</p>;
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={client}>
    <Bank />
  </ConvexProvider>,
);
