// Says what went wrong, and what the service wants to be waited for.

import { Problem } from "./api.js";
import { byId, el } from "./dom.js";

/** @param {Error} error @returns {string} its words, with the time after which to try again */
export const wordsOf = (error) =>
  error.message + (error instanceof Problem && error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "");

/** Do something, and say what went wrong. @param {() => Promise<unknown>} work */
export async function guarded(work) {
  tell(null);
  await work().catch((error) => {
    if (error.name !== "AbortError") tell(error);
  });
}

/** @param {Error|null} error */
export function tell(error) {
  const box = byId("problem");
  box.hidden = error === null;
  if (error === null) return;
  byId("intake").textContent = "";
  const request = error instanceof Problem ? error.body.request_id : null;
  box.replaceChildren(el("p", {}, wordsOf(error)), request ? el("p", { class: "mono" }, `Request ${request}`) : "");
  box.scrollIntoView({ block: "nearest" });
}
