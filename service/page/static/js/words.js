// How numbers, times and names are written for people.

export const CONTRASTS = /** @type {const} */ (["t1", "t1ce", "t2", "flair"]);

/** @type {Record<string, string>} */
export const CONTRAST_WORDS = { t1: "T1", t1ce: "T1 with contrast", t2: "T2", flair: "FLAIR" };

/** Where there is little room. @type {Record<string, string>} */
export const CONTRAST_SHORT = { t1: "T1", t1ce: "T1ce", t2: "T2", flair: "FLAIR" };

/** @param {number|null|undefined} value @param {number} digits */
export const fixed = (value, digits = 1) =>
  value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits);

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} bytes */
export const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`;

/** @param {string|null} text an ISO time */
export const moment = (text) =>
  text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "–";

/** @param {number} place 1 is next */
export function ordinal(place) {
  const last = place % 10;
  const teen = Math.floor((place % 100) / 10) === 1;
  return `${place}${teen ? "th" : (["th", "st", "nd", "rd"][last] ?? "th")}`;
}

/** @param {{model: string, model_version?: string|null, options: Record<string, unknown>}} job */
export function configuration(job) {
  const said = [job.model + (job.model_version ? ` ${job.model_version}` : "")];
  if (job.options.tta) said.push(`mirroring ${job.options.tta}`);
  if (job.options.window) said.push(`window ${job.options.window}`);
  if (job.options.postprocess === false) said.push("no corrections");
  return said.join(", ");
}

/** @type {Record<string, string>} */
export const STATE_WORDS = {
  queued: "Waiting", running: "Running", succeeded: "Done", failed: "Failed", cancelled: "Cancelled",
};

/** @type {Record<string, string>} */
export const STAGE_WORDS = {
  read: "opening the images", load: "loading the model", prepare: "preparing the images", infer: "segmenting",
  restore: "going back to the images' own grid", postprocess: "correcting", measure: "measuring", encode: "writing the files",
};
