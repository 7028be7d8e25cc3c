// Follows one job: server-sent events over fetch, which unlike EventSource can carry a key.

import { call, Problem } from "./api.js";

export const OPEN = new Set(["queued", "running"]);
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
const SILENCE = 40000; // the service says something every 15 seconds

/**
 * Until the job has ended: survives lost connections and restarts of the service.
 * @param {string} id
 * @param {{onJob: (job: any) => void, onTrouble: (milliseconds: number) => void, signal: AbortSignal}} told
 * @throws {Problem} there is no such job, or it may not be read
 */
export async function follow(id, { onJob, onTrouble, signal }) {
  let last = "";
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      for await (const event of stream(id, last, signal)) {
        const job = JSON.parse(event.data);
        last = event.id;
        wait = FIRST_WAIT;
        onJob(job);
        if (!OPEN.has(job.state)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && [401, 403, 404].includes(error.status)) throw error;
    }
    onTrouble(wait);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
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
