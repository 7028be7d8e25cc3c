// Every request of the page: the key, problems as errors, and progress of uploads.

import { askForKey, currentKey } from "./key.js";

/** A refusal of the service (RFC 9457), or what can be said without one. */
export class Problem extends Error {
  /** @param {Record<string, any>} body @param {number} status @param {number|null} retryAfter seconds */
  constructor(body, status, retryAfter = null) {
    super(body.detail ?? body.title ?? `The service answered ${status}.`);
    this.body = body;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * @param {string} path
 * @param {RequestInit & {headers?: Record<string, string>}} [init]
 * @returns {Promise<Response>} a good answer; the key is asked for where one is needed
 */
export async function call(path, init = {}) {
  for (let refused = false; ; refused = true) {
    const key = currentKey();
    const headers = { ...init.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(path, { ...init, headers });
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    if (answer.status !== 401 || !(await askForKey(refused || Boolean(key)))) throw problem;
  }
}

/** @param {string} path @param {Parameters<typeof call>[1]} [init] @returns {Promise<any>} */
export const json = async (path, init = {}) =>
  (await call(path, { ...init, headers: { Accept: "application/json", ...init.headers } })).json();

/**
 * Send a form, telling how much of it has gone; fetch cannot.
 * @param {string} path
 * @param {() => FormData} form made anew for each try
 * @param {{headers?: Record<string, string>, onProgress?: (part: number) => void}} [how]
 * @returns {Promise<any>}
 */
export async function send(path, form, how = {}) {
  for (let refused = false; ; refused = true) {
    const key = currentKey();
    const answer = await post(path, form(), key, how);
    if (answer.status >= 200 && answer.status < 300) return JSON.parse(answer.responseText);
    const problem = new Problem(parsed(answer.responseText), answer.status, seconds(answer.getResponseHeader("Retry-After")));
    if (answer.status !== 401 || !(await askForKey(refused || Boolean(key)))) throw problem;
  }
}

/** @returns {Promise<XMLHttpRequest>} */
function post(path, form, key, { headers = {}, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress?.(event.loaded / event.total);
    });
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Problem({ detail: "The service does not answer." }, 0)));
    request.send(form);
  });
}

async function problemOf(answer) {
  return new Problem(parsed(await answer.text()), answer.status, seconds(answer.headers.get("Retry-After")));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const seconds = (header) => (header && /^\d+$/.test(header) ? Number(header) : null);

/** Letters nobody has used before; also where crypto.randomUUID is missing, as on plain HTTP. */
export function token(bytes = 16) {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
