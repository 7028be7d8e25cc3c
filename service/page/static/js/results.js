// What a job found: figures, flags, model card, provenance and files.

import { call, json } from "./api.js";
import { currentKey } from "./key.js";
import { byId, el, facts, table } from "./dom.js";
import { curlOf } from "./curl.js";
import { guarded } from "./told.js";
import { fixed, moment } from "./words.js";

const ORDER = ["WT", "TC", "ET", "NCR", "ED"];
const SEVERITY_WORDS = { fail: "Do not use", review: "Look at this", info: "Good to know" };
/** @type {Record<string, string>} */
const FILE_WORDS = {
  "segmentation.nii.gz": "Label map (NIfTI)", "segmentation.dcm": "DICOM SEG", "measurements.dcm": "DICOM SR",
  "report.json": "Report (JSON)", "statistics.csv": "Figures (CSV)", "run.json": "Run record (JSON)", "report.html": "Report (HTML)",
};

/** @typedef {{job: any, files: {name: string, href: string}[], report: any, run: any, model: any}} Result */

/** @param {any} job one that succeeded @param {AbortSignal} signal @returns {Promise<Result>} */
export async function fetchResult(job, signal) {
  const { files } = await json(job.links.files, { signal });
  const file = (name) => json(`${job.links.files}/${name}`, { signal, headers: { Accept: "*/*" } });
  const [report, run] = await Promise.all([file("report.json"), file("run.json")]);
  const model = await json(`/models/${encodeURIComponent(job.model.split("@")[0])}`, { signal }).catch(() => null);
  signal.throwIfAborted();
  return { job, files, report, run, model };
}

/** @param {Result} result */
export function showResults(result) {
  byId("results").replaceChildren(
    el("section", { "aria-labelledby": "figures-title" }, el("h2", { id: "figures-title" }, "What was found"),
      flags(result.report), el("div", { class: "wide" }, figures(result.report))),
    el("section", { "aria-labelledby": "files-title" }, el("h2", { id: "files-title" }, "Take it with you"), files(result), curl(result)),
    el("div", { class: "columns" }, card(result), provenance(result)));
}

function flags({ quality, warnings, memory_steps: steps = [] }) {
  const rows = quality.map(({ severity, reason }) => el("li", { class: severity }, el("strong", {}, `${SEVERITY_WORDS[severity]}:`), reason));
  rows.push(...warnings.map((warning) => el("li", { class: "review" }, el("strong", {}, "Note:"), warning)));
  if (steps.length) rows.push(el("li", { class: "info" }, el("strong", {}, "Memory ran out:"), `what was done then: ${steps.join(", ")}`));
  if (rows.length === 0) rows.push(el("li", { class: "good" }, el("strong", {}, "No flag:"), "no check found anything odd. That is not proof that the result is right."));
  return el("ul", { class: "flags", id: "flags" }, ...rows);
}

function figures({ statistics }) {
  const heads = [{ text: "Structure" }, { text: "Meaning" }, ...["Volume, mL", "Parts", "Largest part, mL", "Longest diameter, mm", "Axial diameters, mm"].map((text) => ({ text, number: true }))];
  const rows = ORDER.filter((name) => statistics.structures[name]).map((name) => {
    const one = statistics.structures[name];
    return [
      el("span", {}, el("span", { class: `swatch ${name}`, hidden: ["WT", "TC"].includes(name) }), name), one.meaning, fixed(one.volume_ml, 2), one.components,
      fixed(one.lesions?.[0]?.volume_ml, 2), fixed(one.diameter?.length_mm),
      one.axial ? `${fixed(one.axial.long.length_mm)} × ${fixed(one.axial.short.length_mm)}` : "–",
    ];
  });
  return table("Regions (WT, TC) and labels, on the grid of the label map; parts touch by a face, an edge or a corner", heads, rows);
}

function files({ files: found, job }) {
  const named = found.filter(({ name }) => FILE_WORDS[name]);
  const all = { name: "segmentation.zip", href: job.links.result, words: "Everything (zip)", accept: "application/zip" };
  return el("ul", { class: "files", id: "files-list" }, ...[...named, all].map((file) => el("li", {}, download(file))));
}

function download({ name, href, words = FILE_WORDS[name], accept = "*/*" }) {
  const link = el("a", { class: "button", href, download: name }, words);
  link.addEventListener("click", (event) => { // a plain link can carry neither a key nor a wish for zip
    if (!currentKey() && accept === "*/*") return;
    event.preventDefault();
    guarded(() => save(href, name, accept));
  });
  return link;
}

async function save(href, name, accept) {
  const answer = await call(href, { headers: { Accept: accept } });
  const place = URL.createObjectURL(await answer.blob());
  el("a", { href: place, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(place), 60000);
}

function curl({ job, run }) {
  const text = curlOf(job, run.source, location.origin);
  const said = el("span", { role: "status", class: "quiet" });
  const button = el("button", { type: "button", id: "copy-curl" }, "Copy as curl");
  button.addEventListener("click", async () => {
    const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    said.textContent = done ? "Copied." : "Select it and copy it by hand: this browser does not let pages copy here.";
  });
  return el("div", {}, el("pre", { id: "curl", tabindex: 0, "aria-label": "The same job as a curl command" }, text), el("p", { class: "row" }, button, said));
}

function card({ model, report }) {
  const known = model?.card ?? {};
  return el("section", { "aria-labelledby": "card-title" }, el("h2", { id: "card-title" }, `Model card: ${report.model} ${report.model_version}`),
    facts([
      ["Meant for", known.intended_use], ["Limits", known.limitations], ["Trained on", known.training?.data],
      ["Family", known.family], ["Parameters", known.weights?.parameters?.toLocaleString()], ["Licence", known.licence], ["Cite", known.citation],
    ]),
    model && known.version !== report.model_version ? el("p", { class: "quiet" }, `This card is that of version ${known.version}, which serves now.`) : null);
}

function provenance({ run, report, job }) {
  const engine = run.engine;
  return el("section", { "aria-labelledby": "provenance-title" }, el("h2", { id: "provenance-title" }, "How it was computed"),
    facts([
      ["Begun", moment(run.started)], ["Weights", el("code", {}, run.model.weights_sha256)],
      ["Code", [run.code.version, run.code.commit?.slice(0, 12)].filter(Boolean).join(", ")],
      ["Engine", `${engine.backend} on ${engine.device}, ${engine.precision}, ${engine.threads} threads`],
      ["Mirroring", `${report.tta.mode}, ${report.tta.passes} passes`], ["Agreement", agreement(report)],
      ["Windows", `${report.windows.count} of ${report.window.shape.join(" × ")} voxels`],
      ["Prepared", (report.preparation?.steps ?? []).map((step) => step.name ?? step.step ?? step).join(", ") || "no: taken as sent"],
      ["Result", el("code", {}, run.result.file.sha256)],
      ["Time", Object.entries(report.stage_seconds).map(([stage, seconds]) => `${stage} ${fixed(seconds, 2)} s`).join(", ")],
      ["Job", el("code", {}, job.id)],
    ]),
    el("p", { class: "quiet" }, "The run record holds the checksums of all inputs; segmamba replay does the run again from it."));
}

const agreement = ({ agreement: found }) => (found ? Object.entries(found).map(([name, dice]) => `${name} ${fixed(dice, 3)}`).join(", ") : null);
