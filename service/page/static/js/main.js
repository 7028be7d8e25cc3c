// Puts the page together: what the address says is what is shown.

import { Problem, send, token } from "./api.js";
import { noPicture, showBatch, submitBatch } from "./compare.js";
import { byId, el } from "./dom.js";
import { showStudy } from "./inspect.js";
import { showJob } from "./job.js";
import { startKey } from "./key.js";
import { showOptions } from "./options.js";
import { fetchPictures } from "./pictures.js";
import { showRecent } from "./recent.js";
import { fetchResult, showResults } from "./results.js";
import { chosen, dropped, formOf, sampleFiles, studyOf } from "./upload.js";
import { Viewer } from "./viewer.js";

const VIEWS = ["study", "job", "compare"];
let leaving = new AbortController();
/** @type {Viewer|null} one for all views: browsers allow few WebGL contexts */
let viewer = null;
const theViewer = () => (viewer ??= new Viewer());

/** Show what the address names; nothing else decides. */
async function route() {
  const [, kind, id] = /^#(job|batch)=([\w-]+)$/.exec(location.hash) ?? [];
  leaving.abort();
  leaving = new AbortController();
  tell(null);
  const view = kind === "job" ? "job" : kind === "batch" ? "compare" : "study";
  for (const one of VIEWS) byId(`view-${one}`).hidden = one !== view;
  byId(`view-${view}`).querySelector("h1").focus();
  if (view === "job") await openJob(id, leaving.signal);
  else if (view === "compare") await showBatch(id, theViewer, leaving.signal);
  else await showRecent();
}

async function openJob(id, signal) {
  byId("job-title").textContent = `Job ${id.slice(0, 8)}`;
  byId("results").replaceChildren();
  byId("job-viewer").replaceChildren();
  await showJob(id, { signal, onEnd: (job) => job.state === "succeeded" && guarded(() => openResult(job, signal)) });
}

async function openResult(job, signal) {
  const result = await fetchResult(job, signal);
  showResults(result);
  theViewer().expect("Fetching the images …");
  byId("job-viewer").replaceChildren(theViewer().panel);
  const { images, map, disagreement, target } = await fetchPictures(result, signal);
  if (signal.aborted) return;
  const overlay = { name: "labels", words: job.model, map, labels: result.report.labels };
  await theViewer().show(images, [overlay], { disagreement, target }).catch((error) => theViewer().fail(noPicture(error)));
}

async function take(files) {
  byId("intake").textContent = "Reading …";
  const study = await studyOf(await files);
  byId("intake").textContent = "";
  let enable = (_ready) => {};
  let ready = false;
  const looking = showStudy(study, (now) => enable((ready = now)));
  const options = await showOptions(study, {
    run: (set) => guarded(() => run(study, set)),
    compare: (sets) => guarded(async () => (location.hash = `#batch=${await submitBatch(study, sets)}`)),
  });
  enable = options.enable;
  enable(ready);
  await looking;
}

async function run(study, set) {
  const onProgress = (part) => (byId("intake").textContent = part < 1 ? `Sending the images: ${Math.round(100 * part)} %` : "");
  const form = () => formOf(study, { ...set, images: "true" });
  const job = await send("/jobs", form, { headers: { "Idempotency-Key": token() }, onProgress });
  location.hash = `#job=${job.id}`;
}

/** Do something, and say what went wrong. @param {() => Promise<unknown>} work */
async function guarded(work) {
  tell(null);
  await work().catch((error) => {
    if (error.name !== "AbortError") tell(error);
  });
}

/** @param {Error|null} error */
function tell(error) {
  const box = byId("problem");
  box.hidden = error === null;
  if (error === null) return;
  byId("intake").textContent = "";
  const again = error instanceof Problem && error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  const request = error instanceof Problem ? error.body.request_id : null;
  box.replaceChildren(el("p", {}, error.message + again), request ? el("p", { class: "mono" }, `Request ${request}`) : "");
  box.scrollIntoView({ block: "nearest" });
}

function startIntake() {
  const drop = byId("drop");
  const over = (on) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", on);
  };
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => event.preventDefault()); // a near miss must not leave the page
  drop.addEventListener("dragenter", over(true));
  drop.addEventListener("dragover", over(true));
  drop.addEventListener("dragleave", over(false));
  drop.addEventListener("drop", (event) => {
    over(false)(event);
    guarded(() => take(dropped(event.dataTransfer)));
  });
  for (const id of ["files", "folder"]) {
    const input = /** @type {HTMLInputElement} */ (byId(id));
    input.addEventListener("change", () => {
      const files = chosen(input.files);
      input.value = "";
      if (files.length) guarded(() => take(Promise.resolve(files)));
    });
  }
  byId("sample").addEventListener("click", () => guarded(async () => {
    byId("intake").textContent = "Fetching the sample study; the first time it has to be drawn, which takes a while …";
    await take(sampleFiles());
  }));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the job
  byId("main").focus();
});
window.addEventListener("hashchange", () => guarded(route));
startKey();
startIntake();
guarded(route);
