// One job on its way: place in the queue, windows, time left, cancelling; found again by its id.

import { call, json } from "./api.js";
import { byId, el } from "./dom.js";
import { follow, OPEN, patiently } from "./events.js";
import { configuration, duration, moment, ordinal, STAGE_WORDS, STATE_WORDS } from "./words.js";

const ASK_AGAIN = 3000; // places in the queue and estimates change without an event

/**
 * @param {string} id
 * @param {{onEnd: (job: any) => void, signal: AbortSignal}} on
 */
export async function showJob(id, { onEnd, signal }) {
  const parts = panel(id);
  const draw = (job) => {
    if (signal.aborted) return;
    parts.draw(job);
    if (!OPEN.has(job.state)) onEnd(job);
  };
  const onTrouble = (words) => parts.say(`${words} The job goes on without this page.`);
  draw(await patiently(() => json(`/jobs/${id}`, { signal }), { onTrouble, signal }));
  if (parts.ended()) return;
  const timer = setInterval(() => json(`/jobs/${id}`, { signal }).then((job) => OPEN.has(job.state) && parts.draw(job), () => {}), ASK_AGAIN);
  await follow(id, { onJob: draw, onTrouble, signal }).finally(() => clearInterval(timer));
}

function panel(id) {
  const state = el("strong", { id: "state" });
  const detail = el("span", { id: "state-detail" });
  const bar = el("progress", { id: "windows", "aria-label": "Windows of the network" });
  const trouble = el("p", { id: "trouble", role: "status", class: "quiet" });
  const cancel = el("button", { type: "button", id: "cancel" }, "Cancel");
  const set = el("span", { class: "quiet", id: "job-configuration" });
  const live = el("p", { class: "state" }, el("span", { class: "state", role: "status" }, state, detail), set);
  const hint = el("span", { class: "quiet" }, "This page may be closed: its address brings the job back.");
  const way = el("p", { class: "row" }, cancel, hint);
  byId("job-state").replaceChildren(live, bar, trouble, way);
  let last = /** @type {any} */ (null);
  cancel.onclick = async () => {
    cancel.disabled = true;
    cancel.textContent = "Cancelling …";
    const job = await call(`/jobs/${id}/cancel`, { method: "POST" }).then((answer) => answer.json(), () => null);
    cancel.textContent = "Cancel";
    cancel.disabled = job !== null; // it ends between two windows
    if (job) draw(job);
  };
  const ended = () => last !== null && !OPEN.has(last.state);
  const draw = (job) => {
    if (ended()) return; // an answer that was on its way longer than the event of the end
    last = job;
    state.textContent = STATE_WORDS[job.state];
    state.dataset.state = job.state;
    write(detail, describe(job));
    trouble.textContent = "";
    set.textContent = `${configuration(job)}, sent ${moment(job.created)}`;
    showBar(bar, job);
    way.hidden = !OPEN.has(job.state);
  };
  return { draw, say: (text) => (trouble.textContent = text), ended };
}

function write(node, text) { // a screen reader says again what is set again
  if (node.textContent !== text) node.textContent = text;
}

function showBar(bar, job) {
  bar.hidden = !OPEN.has(job.state);
  if (job.state === "running" && job.progress.total > 0) {
    bar.max = job.progress.total;
    bar.value = job.progress.done;
  } else bar.removeAttribute("value");
}

/** @param {any} job @returns {string} one sentence */
export function describe(job) {
  const left = job.eta_s === null ? "" : `, about ${duration(job.eta_s)} left`;
  if (job.state === "queued") return job.position ? `${ordinal(job.position)} in the queue${left}` : "in the queue";
  if (job.state === "running") return running(job) + left + (job.attempts > 1 ? ` (begun ${job.attempts} times)` : "");
  if (job.state === "failed") return job.error?.detail ?? job.error?.title ?? "No reason was given.";
  if (job.state === "cancelled") return "Nothing was kept.";
  if (job.cached) return "Known from an earlier, equal job.";
  return `Took ${duration((Date.parse(job.ended) - Date.parse(job.started)) / 1000)}.`;
}

function running({ progress }) {
  if (progress.stage === "infer" && progress.total > 0) return `window ${progress.done} of ${progress.total}`;
  return STAGE_WORDS[progress.stage] ?? "beginning";
}
