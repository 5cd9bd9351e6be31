import { createRoot } from "react-dom/client";
import { useEffect, useRef } from "react";
import { ConvexProvider, ConvexReactClient, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";

const client = new ConvexReactClient(window.BANK_URL, { skipConvexDeploymentUrlCheck: true });

const shown = [];
function show(text) {
  if (shown.at(-1) === text) return;
  shown.push(text);
  if (text.endsWith("browser.1")) void fetch("/shown", { method: "POST", body: JSON.stringify({ shown }) });
}

function Bank() {
  const mine = useQuery(api.bank.mine, { client: "browser" });
  const note = useMutation(api.bank.note);
  const sent = useRef(0);
  useEffect(() => {
    show(document.getElementById("root").textContent);
    if (mine !== undefined && mine.length === sent.current && sent.current < 2) {
      void note({ client: "browser", tag: `browser.${sent.current++}` });
    }
  }, [mine]);
  return <p>{mine === undefined ? "loading" : mine.join(",")}</p>;
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={client}>
    <Bank />
  </ConvexProvider>,
);
