// Puts the page together: what the address says is what is shown.

import { send, token } from "./api.js";
import { noPicture, showBatch, submitBatch } from "./compare.js";
import { byId } from "./dom.js";
import { showStudy } from "./inspect.js";
import { showJob } from "./job.js";
import { startKey } from "./key.js";
import { clearOptions, fetchKnown, showNoOptions, showOptions } from "./options.js";
import { fetchPictures } from "./pictures.js";
import { showRecent } from "./recent.js";
import { fetchResult, showResults } from "./results.js";
import { guarded, tell } from "./told.js";
import { chosen, dropped, formOf, sampleFiles, studyOf } from "./upload.js";
import { Viewer } from "./viewer.js";

const VIEWS = ["study", "job", "compare"];
let leaving = new AbortController();
let taking = new AbortController();
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

/**
 * Show a study; the one before it can be sent no more, whatever happens to this one.
 * @param {(signal: AbortSignal) => Promise<{file: File, path: string}[]>} read the files; aborted by the next study
 */
async function take(read) {
  taking.abort();
  taking = new AbortController();
  const { signal } = taking;
  clearOptions();
  byId("found").hidden = true;
  byId("intake").textContent = "Reading …";
  const study = await unlessOvertaken(signal, read(signal).then(studyOf));
  byId("intake").textContent = "";
  let enable = (_ready) => {};
  let ready = false;
  const looking = showStudy(study, (now) => enable((ready = now)));
  const on = {
    run: (set) => guarded(() => run(study, set)),
    compare: (sets) => guarded(async () => (location.hash = `#batch=${await submitBatch(study, sets)}`)),
  };
  const offer = async () => {
    const known = await unlessOvertaken(signal, fetchKnown().catch((error) => ({ error })));
    if (known.error) return showNoOptions(known.error, () => guarded(offer));
    enable = showOptions(study, known, on).enable;
    enable(ready);
  };
  await offer();
  await looking;
}

/** What was waited for; an AbortError where something else was asked for meanwhile, also if it failed. */
async function unlessOvertaken(signal, waited) {
  try {
    return await waited;
  } finally {
    signal.throwIfAborted();
  }
}

async function run(study, set) {
  const onProgress = (part) => (byId("intake").textContent = part < 1 ? `Sending the images: ${Math.round(100 * part)} %` : "");
  const form = () => formOf(study, { ...set, images: "true" });
  const job = await send("/jobs", form, { headers: { "Idempotency-Key": token() }, onProgress });
  location.hash = `#job=${job.id}`;
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
    guarded(() => take(() => dropped(event.dataTransfer)));
  });
  for (const id of ["files", "folder"]) {
    const input = /** @type {HTMLInputElement} */ (byId(id));
    input.addEventListener("change", () => {
      const files = chosen(input.files);
      input.value = "";
      if (files.length) guarded(() => take(async () => files));
    });
  }
  byId("sample").addEventListener("click", () => guarded(() => take((signal) => {
    byId("intake").textContent = "Fetching the sample study; the first time it has to be drawn, which takes a while …";
    return sampleFiles((words) => (byId("intake").textContent = words), signal);
  })));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the job
  byId("main").focus();
});
window.addEventListener("hashchange", () => guarded(route));
startKey();
startIntake();
guarded(route);
