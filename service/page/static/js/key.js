// The caller's key: asked for when the service wants one, kept for this tab, sent as a header only.

import { byId } from "./dom.js";

const PLACE = "segmamba-key";

/** @type {Promise<boolean>|null} one dialogue at a time, however many requests were refused */
let asking = null;

/** @returns {string|null} */
export const currentKey = () => sessionStorage.getItem(PLACE);

/**
 * @param {boolean} refused whether the last one was not accepted
 * @returns {Promise<boolean>} whether there is a new one
 */
export function askForKey(refused) {
  asking ??= dialogue(refused).finally(() => (asking = null));
  return asking;
}

/** @param {boolean} refused */
function dialogue(refused) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const field = /** @type {HTMLInputElement} */ (byId("key"));
  byId("key-refused").hidden = !refused;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const key = field.value.trim();
      field.value = "";
      if (dialog.returnValue === "ok" && key) sessionStorage.setItem(PLACE, key);
      show();
      resolve(dialog.returnValue === "ok" && key !== "");
    }, { once: true });
  });
}

/** Show the button that forgets it. */
export function show() {
  byId("forget-key").hidden = currentKey() === null;
}

/** Wire the button. */
export function startKey() {
  byId("forget-key").addEventListener("click", () => {
    sessionStorage.removeItem(PLACE);
    location.reload();
  });
  show();
}
