// How long a run will take, by the last runs of the same model; the service tells it only once a job is there.

import { json } from "./api.js";
import { duration } from "./words.js";

/** @returns {Promise<any[]>} jobs that ended well and were computed */
export async function pastRuns() {
  const { jobs } = await json("/jobs?state=succeeded&limit=100");
  return jobs.filter((job) => !job.cached && job.started && job.ended);
}

/**
 * @param {any[]|null} runs from `pastRuns`; null where they could not be asked for
 * @param {{model: string, tta?: string, window?: string, preprocess?: string, n4?: boolean}} wanted
 * @returns {string} a sentence
 */
export function prediction(runs, wanted) {
  if (runs === null) return "No estimate: the earlier runs could not be asked for.";
  const alike = runs.filter((job) => job.model === wanted.model
    && (job.options.tta ?? "") === (wanted.tta ?? "") && (job.options.window ?? "") === (wanted.window ?? "")
    && (job.options.preprocess ?? "none") === (wanted.preprocess ?? "none") && (job.options.n4 ?? false) === (wanted.n4 ?? false));
  if (alike.length === 0) return "No estimate yet: this model has not run with these options here.";
  const seconds = median(alike.map((job) => (Date.parse(job.ended) - Date.parse(job.started)) / 1000));
  const runsSaid = alike.length === 1 ? "the one earlier run" : `the median of ${alike.length} earlier runs`;
  return `About ${duration(seconds)} once it begins: ${runsSaid} like this, of studies that may differ in size.`;
}

/** @param {number[]} values at least one */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
