// Shows which image is which contrast and why, lets the user correct it, and says what the service thinks.

import { send } from "./api.js";
import { byId, el, table } from "./dom.js";
import { formOf } from "./upload.js";
import { CONTRASTS, CONTRAST_WORDS, mebibytes } from "./words.js";

const LOOK_AT_ONCE = 64 * 1048576; // bytes that are sent again after each correction

let turn = 0; // an answer that was overtaken by a correction or another study is not shown

/**
 * @param {import("./upload.js").Study} study
 * @param {(ready: boolean) => void} onReady told whether all four contrasts are there
 */
export function showStudy(study, onReady) {
  const again = byId("look-again");
  let seen = /** @type {any} */ (null);
  const look = async () => {
    const mine = (turn += 1);
    onReady(false);
    const [report, problem] = await inspect(study).then((found) => [found, null], (error) => [null, error]);
    if (mine !== turn) return;
    seen = report;
    again.hidden = problem === null;
    drawTable(report);
    tell(problem ? [["fail", "Cannot be used", problem.message]] : judge(report));
    onReady(report !== null && report.study.missing.length === 0);
  };
  const changed = () => (study.bytes <= LOOK_AT_ONCE ? look() : wait());
  const wait = () => {
    turn += 1;
    onReady(false);
    drawTable(study.kind === "nifti" ? null : seen); // what was seen of a file was seen as another contrast
    tell([["review", "Changed", "The service has not looked at these choices yet."]]);
    again.hidden = false;
  };
  const drawTable = (report) => {
    const held = document.activeElement?.id;
    byId("found-table").replaceChildren(study.kind === "nifti" ? niftiRows(study, report, changed) : seriesRows(study, report, changed));
    if (held?.startsWith("is-")) byId(held)?.focus();
  };
  again.onclick = () => {
    again.hidden = true;
    look();
  };
  byId("found").hidden = false;
  again.hidden = true;
  byId("found-table").replaceChildren(el("p", { class: "quiet" }, "The service is looking at the images."));
  tell([]);
  return look();
}

/** @returns {Promise<any>} the service's report; without images to look at, an empty one */
async function inspect(study) {
  const nothing = study.kind === "nifti" && !study.images.some((image) => image.contrast);
  if (nothing) return { series: [], study: { missing: [...CONTRASTS] } };
  return send("/inspect", () => formOf(study), { onProgress: sent });
}

function sent(part) {
  byId("intake").textContent = part < 1 ? `Sending the images: ${Math.round(100 * part)} %` : "";
}

function niftiRows(study, report, changed) {
  const rows = study.images.map((image, index) => {
    const seen = report?.series.find((series) => series.contrast === image.contrast);
    return [
      image.name.split("/").pop(),
      contrastSelect(`is-${index}`, `Contrast of ${image.name.split("/").pop()}`, image.contrast, (contrast) => {
        take(study.images, image, contrast);
        changed();
      }),
      seen ? grid(seen) : mebibytes(image.file.size),
      why(image.reason, image.sure, seen),
    ];
  });
  return table("The files, and what each is held to be", [{ text: "File" }, { text: "Contrast" }, { text: "Grid" }, { text: "Why" }], rows);
}

function take(images, image, contrast) {
  for (const other of images) if (contrast && other.contrast === contrast) other.contrast = null;
  Object.assign(image, { contrast, reason: contrast ? "chosen by you" : "left out by you", sure: true });
}

function seriesRows(study, report, changed) {
  if (!report) return el("p", {}, `${study.dicom.length} DICOM file(s), ${mebibytes(study.bytes)}.`);
  const rows = report.series.map((series, index) => {
    return [
      `Series ${index + 1}`,
      contrastSelect(`is-${index}`, `Contrast of series ${index + 1}`, usedAs(series, study), (contrast) => {
        for (const [one, uid] of Object.entries(study.series)) if (uid === series.uid) delete study.series[one];
        if (contrast) study.series[contrast] = series.uid;
        changed();
      }, { unused: usedAs(series, study) === null }), // the service can be told what to take, not what to leave
      `${series.images} images, ${grid(series)}`,
      why(series.reason, !series.uncertain, series),
    ];
  });
  return table("The series of the study, and what each is held to be", [{ text: "Series" }, { text: "Contrast" }, { text: "Images" }, { text: "Why" }], rows);
}

/** The contrast that a series is taken for: by the user, else by the service; null for none. */
function usedAs(series, study) {
  const byUser = Object.entries(study.series).find(([, uid]) => uid === series.uid);
  if (byUser) return byUser[0];
  return series.chosen && !(series.contrast in study.series) ? series.contrast : null;
}

function contrastSelect(id, label, value, onChange, { unused = true } = {}) {
  const none = unused ? [["", "not used"]] : [];
  const options = [...none, ...CONTRASTS.map((contrast) => [contrast, CONTRAST_WORDS[contrast]])];
  const made = el("select", {
    id, "aria-label": label,
    on: { change: (event) => onChange(event.target.value || null) },
  }, ...options.map(([key, words]) => el("option", { value: key }, words)));
  made.value = value ?? "";
  return made;
}

const grid = (series) =>
  series.shape ? `${series.shape.join(" × ")}, ${series.spacing_mm.map((mm) => +mm.toFixed(2)).join(" × ")} mm` : "–";

function why(reason, sure, seen) {
  const troubles = seen?.problems ?? [];
  const notes = seen?.warnings ?? [];
  const confidence = seen && seen.confidence < 1 ? ` (${Math.round(100 * seen.confidence)} %)` : "";
  return el("span", {}, sure ? "" : el("strong", {}, "Please check: "), `${reason}${confidence}`,
    ...troubles.map((trouble) => el("div", {}, el("strong", {}, "Cannot be used: "), trouble)),
    ...notes.map((note) => el("div", { class: "quiet" }, note)));
}

/** @returns {[string, string, string][]} severity, a word, a sentence */
function judge(report) {
  const found = report.study;
  const missing = found.missing.map((contrast) => CONTRAST_WORDS[contrast]);
  const said = [];
  if (missing.length) said.push(["fail", "Missing", `${missing.join(", ")}. Choose it in the table, or add the file.`]);
  if (found.uncertain?.length) said.push(["review", "Please confirm", found.uncertain.map((c) => CONTRAST_WORDS[c] ?? c).join(", ")]);
  for (const suspicion of found.suspicions ?? []) said.push(["review", "Looks odd", suspicion]);
  for (const warning of found.warnings ?? []) said.push(["review", "Note", warning]);
  if (found.studies > 1) said.push(["review", "Several studies", `The files belong to ${found.studies} studies.`]);
  if (found.ready) said.push(["good", "Ready", "May be segmented as it is: one grid, no skull."]);
  else if (!missing.length && !found.prepared && found.preparation) {
    said.push(["info", "To be prepared", `Under “prepare: what is missing” the service would ${found.preparation.join("; ")}.`]);
  }
  return said;
}

function tell(said) {
  byId("found-facts").replaceChildren(el("ul", { class: "flags" }, ...said.map(([severity, word, sentence]) =>
    el("li", { class: severity }, el("strong", {}, `${word}:`), sentence))));
}
