// Several models or options on one study: their volumes, how much they overlap, one viewer for all.

import { json, send, token } from "./api.js";
import { byId, el, table } from "./dom.js";
import { describe } from "./job.js";
import { OPEN, patiently } from "./events.js";
import { overlap } from "./nifti.js";
import { fetchImages, fetchMap } from "./pictures.js";
import { fetchResult } from "./results.js";
import { formOf } from "./upload.js";
import { configuration, CONTRASTS, fixed, STATE_WORDS } from "./words.js";

const ORDER = ["WT", "TC", "ET", "NCR", "ED"];
const REGIONS = { WT: ["NCR", "ED", "ET"], TC: ["NCR", "ET"], ET: ["ET"] };
const ASK_AGAIN = 1000;

/** Submit one job for each set. @returns {Promise<string>} the token of the batch */
export async function submitBatch(study, sets) {
  if (sets.length < 2) throw new Error("Tick two or more to compare.");
  const batch = `cmp-${token(8)}`;
  for (const set of sets) {
    const form = () => formOf(study, { ...set, batch, images: "true" });
    await send("/jobs", form, { headers: { "Idempotency-Key": token() } });
  }
  return batch;
}

/** @param {string} batch @param {() => import("./viewer.js").Viewer} viewer @param {AbortSignal} signal */
export async function showBatch(batch, viewer, signal) {
  byId("compare-results").replaceChildren();
  byId("compare-viewer").replaceChildren();
  const jobs = await ended(batch, signal);
  const good = jobs.filter((job) => job.state === "succeeded");
  if (signal.aborted || good.length === 0) return;
  const answers = await answersOf(good, signal);
  const images = await fetchImages(answers[0].result, signal);
  if (signal.aborted) return;
  byId("compare-results").replaceChildren(
    el("section", {}, el("h2", {}, "Volumes"), el("div", { class: "wide" }, volumes(answers))),
    el("section", {}, el("h2", {}, "Overlap"), el("div", { class: "wide" }, overlaps(answers))));
  await draw(answers, images, viewer());
}

/** One after the other, the label maps last: a batch of a program's may be large, and of many patients. */
async function answersOf(jobs, signal) {
  const answers = [];
  for (const job of jobs) {
    const result = await fetchResult(job, signal);
    if (answers.length > 0 && inputs(result) !== inputs(answers[0].result)) {
      throw new Error("The jobs of this batch are of different images: they cannot be compared. Each can be looked at by itself.");
    }
    answers.push({ result, words: configuration(job) });
  }
  for (const answer of answers) Object.assign(answer, await fetchMap(answer.result, signal));
  return answers;
}

/** What tells the images of a result from others. */
const inputs = ({ run }) => CONTRASTS.map((contrast) => run.inputs[contrast]?.decoded_sha256).join();

/** The jobs of a batch once all have ended, the first that was sent first. */
async function ended(batch, signal) {
  const state = byId("compare-state");
  state.replaceChildren();
  const trouble = el("p", { role: "status", class: "quiet" });
  const onTrouble = (words) => {
    state.append(trouble);
    trouble.textContent = words;
  };
  for (;;) {
    const { jobs } = await patiently(() => json(`/jobs?batch=${batch}&limit=50`, { signal }), { onTrouble, signal });
    jobs.reverse();
    state.replaceChildren(table("The jobs of this comparison", [{ text: "Model and options" }, { text: "State" }, { text: "" }],
      jobs.map((job) => [el("a", { href: `#job=${job.id}` }, configuration(job)), STATE_WORDS[job.state], describe(job)])));
    if (signal.aborted || !jobs.some((job) => OPEN.has(job.state))) return jobs;
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN));
  }
}

function volumes(answers) {
  const heads = [{ text: "mL" }, ...answers.map(({ words }) => ({ text: words, number: true }))];
  return table("Volume of each region and label by each answer", heads, ORDER.map((name) =>
    [name, ...answers.map(({ result }) => fixed(result.report.volumes_ml[name], 2))]));
}

function overlaps(answers) {
  const pairs = answers.flatMap((one, i) => answers.slice(i + 1).map((other) => [one, other]));
  const heads = [{ text: "Pair" }, ...Object.keys(REGIONS).map((text) => ({ text, number: true }))];
  const rows = pairs.map(([one, other]) => [`${one.words} and ${other.words}`, ...Object.values(REGIONS).map((names) =>
    fixed(overlap(one.map, valuesOf(one, names), other.map, valuesOf(other, names)), 3))]);
  return table("Dice overlap, computed in this browser: 1 is the same voxels, 0 none in common", heads, rows);
}

const valuesOf = ({ result }, names) => new Set(result.report.labels.filter(({ name }) => names.includes(name)).map(({ value }) => value));

async function draw(answers, images, viewer) {
  viewer.expect("Drawing …");
  byId("compare-viewer").replaceChildren(viewer.panel);
  const overlays = answers.map(({ words, result, map }, i) => ({ name: `answer-${i}`, words, map, labels: result.report.labels }));
  await viewer.show(images, overlays, { target: answers[0].target }).catch((error) => viewer.fail(noPicture(error)));
}

/** @param {Error} error */
export const noPicture = (error) => `The images cannot be shown here (${error.message}). Figures and files are below.`;
