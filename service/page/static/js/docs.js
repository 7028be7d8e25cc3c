// Draws every route from the OpenAPI document.

import { byId, el, table } from "./dom.js";

/** @param {any} document @param {any} node @returns {any} what a reference names */
const resolve = (document, node) =>
  node?.$ref ? node.$ref.replace("#/", "").split("/").reduce((at, part) => at[part], document) : node;

/** @param {any} schema @returns {string} in a few words */
function kindOf(schema) {
  if (!schema) return "";
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" or ");
  if (schema.format === "binary") return "file";
  return schema.type ?? schema.$ref?.split("/").pop() ?? "";
}

function fieldsOf(document, operation) {
  const given = (operation.parameters ?? []).map((one) => [one.name, one.in, kindOf(one.schema), one.description ?? one.schema?.description ?? ""]);
  const form = resolve(document, operation.requestBody?.content?.["multipart/form-data"]?.schema);
  const parts = Object.entries(form?.properties ?? {}).map(([name, schema]) => [name, "form", kindOf(schema), schema.description ?? ""]);
  return [...given, ...parts];
}

function answersOf(operation) {
  return Object.entries(operation.responses).map(([status, answer]) =>
    [status, Object.keys(answer.content ?? {}).join(", "), answer.description]);
}

function routeOf(document, method, path, operation) {
  const name = `${method.toUpperCase()} ${path}`;
  const fields = fieldsOf(document, operation);
  const texts = (...words) => words.map((text) => ({ text }));
  return el("details", {}, el("summary", {}, el("code", {}, name), ` ${operation.summary ?? ""}`),
    el("p", {}, operation.description ?? ""),
    fields.length ? el("div", { class: "wide" }, table(`What ${name} takes`, texts("Name", "Where", "Kind", "Meaning"), fields)) : null,
    el("div", { class: "wide" }, table(`What ${name} answers`, texts("Status", "Content", "Meaning"), answersOf(operation))));
}

async function draw() {
  const document = await (await fetch("/openapi.json")).json();
  const routes = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => routeOf(document, method, path, operation)));
  byId("routes").removeAttribute("role");
  byId("routes").replaceChildren(...routes);
}

byId("server").textContent = `export SERVER=${location.origin}\nexport SEGMAMBA_KEY=…   # where one is needed`;
draw().catch(() => (byId("routes").textContent = "The description cannot be read now."));
