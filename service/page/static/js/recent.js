// The caller's last jobs.

import { call, json } from "./api.js";
import { byId, el, table } from "./dom.js";
import { guarded } from "./told.js";
import { configuration, moment, STATE_WORDS } from "./words.js";

const SHOWN = 10;
const COMPARISON = /^cmp-/; // the page's own; programs join jobs of many patients into a batch

/** Draw the list anew. */
export async function showRecent() {
  const { jobs } = await json(`/jobs?limit=${SHOWN}`);
  if (jobs.length === 0) {
    byId("recent").replaceChildren(el("p", { class: "quiet" }, "None yet, or none that is still kept."));
    return;
  }
  const rows = jobs.map((job) => [
    el("a", { href: `#job=${job.id}` }, moment(job.created)), STATE_WORDS[job.state], configuration(job),
    COMPARISON.test(job.batch ?? "") ? el("a", { href: `#batch=${job.batch}` }, "its batch") : "", forget(job),
  ]);
  byId("recent").replaceChildren(table("The last ones; results are deleted after a time", [{ text: "Sent" }, { text: "State" }, { text: "Model and options" }, { text: "Batch" }, { text: "Delete" }], rows));
}

function forget(job) {
  const open = ["queued", "running"].includes(job.state);
  const button = el("button", { type: "button", "aria-label": `${open ? "Cancel" : "Delete"} the job of ${moment(job.created)}` }, open ? "Cancel" : "Delete");
  button.addEventListener("click", () => guarded(async () => {
    button.disabled = true;
    await call(`/jobs/${job.id}`, { method: "DELETE" }).finally(() => (button.disabled = false));
    await showRecent();
  }));
  return button;
}
