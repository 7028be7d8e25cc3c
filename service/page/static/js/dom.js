// Makes elements; text never becomes markup.

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [props] `class`, `on` (listeners by event), `data`, any attribute;
 *   true sets a bare attribute, false and null leave it out
 * @param {...(Node|string|number|null|undefined)} children
 * @returns {HTMLElement}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(made.dataset, value);
    } else if (name === "value") {
      made.value = value;
    } else if (value === true) {
      made.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map(asNode));
  return made;
}

/** @param {string} id @returns {HTMLElement} */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * A table with a caption and scoped headings.
 * @param {string} caption
 * @param {{text: string, number?: boolean}[]} heads
 * @param {(Node|string|number|null)[][]} rows the first cell of each is its heading
 */
export function table(caption, heads, rows) {
  const kind = (index) => (heads[index].number ? { class: "number" } : {});
  return el(
    "table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head, i) => el("th", { scope: "col", ...kind(i) }, head.text)))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell, i) =>
      i === 0 ? el("th", { scope: "row" }, cell) : el("td", kind(i), cell))))),
  );
}

/**
 * A list of facts.
 * @param {[string, Node|string|number|null|undefined][]} pairs those without a value are left out
 * @param {string} className "facts": one below the other; another: each pair in an element of its own
 */
export function facts(pairs, className = "facts") {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const pair = ([name, value]) => [el("dt", {}, name), el("dd", {}, value)];
  const grouped = className === "facts" ? told.flatMap(pair) : told.map((one) => el("div", {}, ...pair(one)));
  return el("dl", { class: className }, ...grouped);
}

/** @param {string} id @param {string} label @param {[string, string][]} choices value and words */
export function select(id, label, choices, { name = id, value = "", on = {} } = {}) {
  const made = el("select", { id, name, on }, ...choices.map(([key, words]) => el("option", { value: key }, words)));
  made.value = value;
  return [el("label", { for: id }, label), made];
}

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));
