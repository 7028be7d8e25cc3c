// The form of options, with the predicted time; what is left at "the card's" is not sent.

import { json } from "./api.js";
import { byId, el, select } from "./dom.js";
import { pastRuns, prediction } from "./predict.js";
import { wordsOf } from "./told.js";
import { CONTRASTS, CONTRAST_WORDS } from "./words.js";

const CARD = "the model card’s";
const TTA = [["none", "none"], ["fast", "single flips; shows doubt"], ["full", "all flips; slowest"]];

/** What the form is made of: the models, and the earlier runs or null. */
export async function fetchKnown() {
  const [known, runs] = await Promise.all([json("/models"), pastRuns().catch(() => null)]);
  return { ...known, runs };
}

/** Take the form away: its buttons send the study that it was made for. */
export function clearOptions() {
  byId("options").hidden = true;
  byId("options-form").replaceChildren();
}

/** @param {Error} error why there is no form @param {() => void} again */
export function showNoOptions(error, again) {
  const button = el("button", { type: "button", id: "ask-models", on: { click: () => {
    clearOptions();
    again();
  } } }, "Ask again");
  byId("options-form").replaceChildren(el("p", { class: "problem", role: "alert" }, `The models cannot be listed: ${wordsOf(error)}`), button);
  byId("options").hidden = false;
}

/**
 * @param {import("./upload.js").Study} study
 * @param {Awaited<ReturnType<typeof fetchKnown>>} known
 * @param {{run: (options: Record<string, string>) => Promise<void>, compare: (sets: Record<string, string>[]) => Promise<void>}} on
 * @returns {{enable: (ready: boolean) => void}}
 */
export function showOptions(study, known, on) {
  const form = /** @type {HTMLFormElement} */ (byId("options-form"));
  const submit = el("button", { class: "primary", id: "run" }, "Segment");
  const compare = el("button", { type: "button", id: "compare" }, "Compare these");
  const told = el("p", { id: "prediction", role: "status", class: "quiet" });
  const predict = () => (told.textContent = prediction(known.runs, wanted(form, study)));
  form.replaceChildren(mainFields(known, study), moreFields(study), told, el("p", { class: "row" }, submit), compareFields(known, compare));
  form.onchange = predict;
  const { enable, busy } = turns([submit, compare]);
  form.onsubmit = (event) => {
    event.preventDefault();
    busy(() => on.run(values(form)));
  };
  compare.addEventListener("click", () => busy(() => on.compare(checkedSets(form))));
  predict();
  byId("options").hidden = false;
  return { enable };
}

/** Buttons that can be pressed while the study is ready and nothing is being sent. */
function turns(buttons) {
  const now = { ready: false, sending: false };
  const set = (change) => {
    Object.assign(now, change);
    for (const button of buttons) button.disabled = now.sending || !now.ready;
  };
  const busy = async (work) => {
    set({ sending: true });
    await work().finally(() => set({ sending: false }));
  };
  return { enable: (ready) => set({ ready }), busy };
}

/** What the runs that tell the time have in common with this one. */
function wanted(form, study) {
  const { preprocess = study.kind === "dicom" ? "auto" : "none", n4, ...said } = values(form);
  return { ...said, model: form.elements.namedItem("model").value, preprocess, n4: n4 === "true" };
}

/** What the form says, without what is left to the card. @returns {Record<string, string>} */
function values(form) {
  const said = Object.fromEntries(new FormData(form));
  delete said.set;
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== ""));
}

function mainFields(known, study) {
  const cards = Object.fromEntries(known.models.map((model) => [model.name, model.card]));
  const usable = known.models.filter((model) => model.state !== "broken");
  const models = usable.map(({ name, version, state }) => [name, `${name} ${version}${state === "ready" ? "" : " (loaded when asked for)"}`]);
  const card = cards[known.default] ?? {};
  return el("div", { class: "fields" },
    el("div", {}, ...select("model", "Model", models, { value: known.default })),
    el("div", {}, ...select("tta", "Mirroring", [["", `${CARD} (${card.tta ?? "none"})`], ...TTA])),
    el("div", {}, ...select("preprocess", "Prepare the images", preparation(study))),
    el("div", {}, ...select("label_scheme", "Numbering of labels", [
      ["", `${CARD} (${card.label_scheme ?? "?"})`], ["brats2021", "BraTS 2021: enhancing is 4"], ["brats2023", "BraTS 2023: enhancing is 3"]])),
  );
}

const preparation = (study) => [
  ["", study.kind === "dicom" ? "what is missing (usual for DICOM)" : "not at all (usual for NIfTI)"],
  ["auto", "what is missing"], ["none", "not at all"], ["full", "every step"],
];

function moreFields(study) {
  const grids = CONTRASTS.map((contrast) => [contrast, CONTRAST_WORDS[contrast]]);
  const usual = study.kind === "dicom" ? "t1ce" : "t1";
  return el("details", {}, el("summary", {}, "More options"), el("div", { class: "fields" },
    el("div", {}, ...select("postprocess", "Corrections afterwards", [["", CARD], ["true", "yes"], ["false", "no"]])),
    el("div", {}, ...select("window", "Window of the network", [["", CARD], ["card", "the card's size"], ["whole", "the whole brain at once"]])),
    el("div", {}, ...select("grid", "Grid of the label map", [["", `${CONTRAST_WORDS[usual]} (usual)`], ...grids])),
    el("div", {}, ...select("n4", "Correct bias fields first", [["", "no"], ["true", "yes, with preparation"]])),
    study.kind === "dicom"
      ? el("div", {}, ...select("seg_type", "DICOM SEG", [["", "BINARY (every viewer)"], ["LABELMAP", "LABELMAP"]])) : null,
    el("div", {}, ...select("priority", "Priority", [["", "normal"], ["high", "high"], ["low", "low"]])),
    el("div", {}, ...select("cache", "A result that is known already", [["", "will do"], ["false", "compute anew"]])),
    el("div", {}, ...select("allow_fewer_passes", "Where memory runs out, leave mirrored passes out", [["", "no"], ["true", "yes"]])),
  ));
}

function compareFields(known, button) {
  const sets = known.models.filter((model) => model.state !== "broken").flatMap(({ name }) => [
    [JSON.stringify({ model: name }), name],
    [JSON.stringify({ model: name, tta: "fast" }), `${name}, mirroring fast`],
  ]);
  const ticks = sets.map(([value, words], index) => el("label", { class: "tick" },
    el("input", { type: "checkbox", name: "set", value, checked: index < 2 }), words));
  return el("details", { id: "compare-options" }, el("summary", {}, "Compare models on this study"),
    el("fieldset", {}, el("legend", {}, "Two or more; the other options are those above"), el("div", { class: "choices" }, ...ticks)), button);
}

/** The options of each ticked set, on top of those of the form. */
function checkedSets(form) {
  const common = values(form);
  return new FormData(form).getAll("set").map((set) => ({ ...common, tta: "", ...JSON.parse(String(set)) }));
}
