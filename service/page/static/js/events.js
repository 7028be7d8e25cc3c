// Follows one job: server-sent events over fetch, which unlike EventSource can carry a key.

import { call, Problem } from "./api.js";
import { duration } from "./words.js";

export const OPEN = new Set(["queued", "running"]);
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
const SILENCE = 40000; // the service says something every 15 seconds
const LASTING = [401, 403, 404];

/** @typedef {{onTrouble: (words: string) => void, signal: AbortSignal}} Told */

/**
 * Until it works: survives lost connections, restarts of the service and refusals that pass.
 * @template T
 * @param {(well: () => void) => Promise<T>} work tells `well` when it gets on
 * @param {Told} told
 * @returns {Promise<T>}
 * @throws {Problem} what is asked for is not there, or may not be read
 */
export async function patiently(work, { onTrouble, signal }) {
  let wait = FIRST_WAIT;
  for (;;) {
    try {
      return await work(() => (wait = FIRST_WAIT));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Problem && LASTING.includes(error.status)) throw error;
      const pause = Math.max(wait, 1000 * (error.retryAfter ?? 0));
      const said = error instanceof Problem ? error.message : "The connection is lost.";
      onTrouble(`${said} Trying again in ${duration(pause / 1000)}.`);
      await new Promise((resolve) => setTimeout(resolve, pause));
      signal.throwIfAborted();
      wait = Math.min(2 * wait, LONGEST_WAIT);
    }
  }
}

/**
 * Until the job has ended.
 * @param {string} id
 * @param {Told & {onJob: (job: any) => void}} told
 * @throws {Problem} there is no such job, or it may not be read
 */
export function follow(id, { onJob, ...told }) {
  let last = "";
  return patiently(async (well) => {
    for await (const event of stream(id, last, told.signal)) {
      const job = JSON.parse(event.data);
      last = event.id;
      well();
      onJob(job);
      if (!OPEN.has(job.state)) return;
    }
    throw new Error("the stream ended before the job");
  }, told);
}

/** The events of one connection. */
async function* stream(id, last, signal) {
  const silent = new AbortController();
  const both = AbortSignal.any([signal, silent.signal]);
  const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
  const answer = await call(`/jobs/${id}/events`, { headers, signal: both, cache: "no-store" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const timer = setTimeout(() => silent.abort(), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const blocks = (kept + value).replaceAll("\r\n", "\n").split("\n\n");
    kept = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parse(block);
      if (event.data) yield event;
    }
  }
}

/** @param {string} block lines of one event @returns {{id: string, data: string}} */
export function parse(block) {
  const event = { id: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") event.id = value;
    if (name === "data") event.data += (event.data ? "\n" : "") + value;
  }
  return event;
}
