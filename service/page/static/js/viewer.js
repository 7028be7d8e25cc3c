// The viewer: contrasts, labels, disagreement, crosshair and what lies under it.

import { el, facts, select } from "./dom.js";
import { axesOf, halfOf, toVoxel, toWorld, valueAt } from "./nifti.js";
import { Scene } from "./scene.js";
import { CONTRAST_SHORT, CONTRAST_WORDS, CONTRASTS } from "./words.js";

const AXES = /** @type {const} */ (["left – right", "back – front", "foot – head"]);
const NOTHING = "no label";

/**
 * @typedef {object} Overlay
 * @property {string} name in the scene
 * @property {string} words
 * @property {import("./nifti.js").Volume} map
 * @property {{value: number, name: string, meaning: string}[]} labels
 */

export class Viewer {
  constructor() {
    this.canvas = el("canvas", { id: "gl", tabindex: 0, role: "img", "aria-label": "Slices in three planes and a 3-D view; the sliders beside move the crosshair" });
    this.wait = el("p", { class: "wait", role: "status" }, "Fetching the images …");
    this.side = el("p", { class: "side", id: "side" });
    this.controls = el("div", { class: "controls" });
    this.readout = el("div", { id: "readout", role: "status", "aria-label": "Under the crosshair" });
    const stage = el("div", { class: "stage" }, el("div", { class: "sheet" }, this.canvas), this.side, this.wait);
    this.panel = el("section", { class: "viewer", "aria-label": "Viewer" }, el("div", { class: "sight" }, stage, this.readout), this.controls);
    this.hidden = new Set();
    this.sliders = null;
    this.opacity = 0.6;
    this.scene = null;
  }

  /**
   * @param {Map<string, import("./nifti.js").Volume>} images by contrast; may be empty
   * @param {Overlay[]} overlays one at least
   * @param {{disagreement?: import("./nifti.js").Volume, target?: number[]|null}} more `target`: mm of the largest lesion
   */
  async show(images, overlays, { disagreement, target = null } = {}) {
    Object.assign(this, { images, overlays, disagreement, target, overlay: overlays[0], disagreeing: false });
    this.contrast = images.has("t1ce") ? "t1ce" : ([...images.keys()][0] ?? null);
    this.hidden.clear();
    this.expect("Drawing …");
    this.scene ??= await Scene.on(this.canvas, (mm) => this.moved(mm));
    this.scene.clear();
    for (const [name, volume] of images) await this.scene.add(name, volume, null);
    for (const { name, map, labels } of overlays) await this.scene.add(name, map, labels);
    if (disagreement) await this.scene.add("disagreement", disagreement, null);
    this.drawControls();
    this.refresh();
    this.scene.view("all");
    this.scene.side(true);
    this.scene.goTo(target ?? this.middle());
    this.wait.hidden = true;
  }

  /** Cover what was shown before. @param {string} words what is waited for */
  expect(words) {
    this.sliders = null;
    this.controls.replaceChildren();
    this.readout.replaceChildren();
    delete this.readout.dataset.voxel;
    this.wait.classList.remove("failed");
    this.wait.textContent = words;
    this.wait.hidden = false;
  }

  /** @param {string} words why there is no picture */
  fail(words) {
    this.expect(words);
    this.wait.classList.add("failed");
  }

  refresh() {
    const layers = this.contrast ? [{ name: this.contrast, opacity: 1 }] : [];
    layers.push({ name: this.overlay.name, opacity: this.disagreeing ? 0 : this.opacity });
    if (this.disagreeing) layers.push({ name: "disagreement", opacity: 1 });
    this.scene.show(layers);
  }

  middle() {
    const { map } = this.overlay;
    return toWorld(map, map.shape.map((count) => Math.floor(count / 2)));
  }

  drawControls() {
    this.controls.replaceChildren(this.contrastField(), this.labelField(), this.placeField());
  }

  contrastField() {
    const names = CONTRASTS.filter((name) => this.images.has(name));
    if (names.length === 0) return el("p", { class: "quiet" }, "This job was sent without images=true: the label map is shown alone.");
    return el("fieldset", {}, el("legend", {}, "Contrast"), el("div", { class: "choices" }, ...names.map((name) =>
      el("label", { class: "tick" }, el("input", {
        type: "radio", name: "contrast", value: name, checked: name === this.contrast,
        on: { change: () => { this.contrast = name; this.refresh(); } },
      }), CONTRAST_SHORT[name]))));
  }

  labelField() {
    const rows = this.overlay.labels.filter(({ value }) => value > 0).map(({ name, meaning }) => el("li", {}, el("label", { class: "tick" },
      el("input", { type: "checkbox", checked: true, data: { label: name }, on: { change: (event) => this.toggle(name, event.target.checked) } }),
      el("span", { class: `swatch ${name}` }), el("span", {}, `${name}: ${meaning}`))));
    return el("fieldset", {}, el("legend", {}, "Labels"), this.overlayField(), el("ul", { class: "labels" }, ...rows),
      this.slider("opacity", "Opacity", { min: 0, max: 100, value: 100 * this.opacity }, (value) => {
        this.opacity = value / 100;
        this.refresh();
      }), this.disagreementField());
  }

  overlayField() {
    if (this.overlays.length < 2) return null;
    const choices = this.overlays.map(({ name, words }) => /** @type {[string, string]} */ ([name, words]));
    const change = (event) => {
      this.overlay = this.overlays.find(({ name }) => name === event.target.value);
      this.scene.recolour(this.overlay.name, this.overlay.labels, this.hidden);
      this.refresh();
    };
    return el("div", { class: "stacked" }, ...select("overlay", "Answer of", choices, { value: this.overlay.name, on: { change } }));
  }

  disagreementField() {
    if (!this.disagreement) return null;
    const change = (event) => {
      this.disagreeing = event.target.checked;
      this.refresh();
    };
    return el("label", { class: "tick" }, el("input", { type: "checkbox", id: "disagreement", on: { change } }),
      "Instead: where mirrored passes disagree (purple 5 %, yellow 50 % and more)");
  }

  placeField() {
    const { map } = this.overlay;
    this.sliders = AXES.map((words, axis) => this.slider(`axis-${axis}`, words, { min: 0, max: map.shape[axis] - 1, value: 0 }, (value) => {
      const voxel = this.voxel.slice();
      voxel[this.axisOf(axis)] = this.flipped(axis) ? map.shape[this.axisOf(axis)] - 1 - value : value;
      this.scene.goTo(toWorld(map, voxel));
    }));
    AXES.forEach((_, axis) => (this.sliders[axis].querySelector("input").max = String(map.shape[this.axisOf(axis)] - 1)));
    const views = [["all", "planes and 3-D"], ["axial", "axial"], ["coronal", "coronal"], ["sagittal", "sagittal"], ["render", "3-D"]];
    return el("fieldset", {}, el("legend", {}, "Place"),
      el("p", { class: "row" }, el("button", { type: "button", id: "largest", disabled: this.target === null, on: { click: () => this.scene.goTo(this.target) } }, "Go to the largest lesion")),
      ...this.sliders,
      el("div", { class: "line" }, ...select("view", "View", views, { on: { change: (event) => this.scene.view(event.target.value) }, value: "all" })),
      el("div", {}, el("label", { class: "tick" }, el("input", { type: "checkbox", id: "radiological", checked: true, on: { change: (event) => this.turn(event.target.checked) } }), "Radiological: patient’s left on the right")));
  }

  slider(id, words, range, onInput) {
    return el("div", { class: "line" }, el("label", { for: id }, words),
      el("input", { type: "range", id, ...range, on: { input: (event) => onInput(Number(event.target.value)) } }));
  }

  toggle(name, shown) {
    if (shown) this.hidden.delete(name);
    else this.hidden.add(name);
    this.scene.recolour(this.overlay.name, this.overlay.labels, this.hidden);
  }

  turn(radiological) {
    this.scene.side(radiological);
    this.sayside(radiological);
  }

  sayside(radiological) {
    this.side.textContent = `Patient’s left on the ${radiological ? "right" : "left"} of axial and coronal slices`;
  }

  /** The array axis that runs along one of the body's. */
  axisOf(axis) {
    return axesOf(this.overlay.map)[axis];
  }

  /** Whether that array axis runs against R, A or S. */
  flipped(axis) {
    return this.overlay.map.affine[axis][this.axisOf(axis)] < 0;
  }

  moved(mm) {
    if (!this.sliders) return;
    const { map, labels } = this.overlay;
    this.voxel = toVoxel(map, mm);
    this.sayside(this.scene.nv.opts.isRadiologicalConvention);
    AXES.forEach((_, axis) => {
      const along = this.voxel[this.axisOf(axis)];
      this.sliders[axis].querySelector("input").value = String(this.flipped(axis) ? map.shape[this.axisOf(axis)] - 1 - along : along);
    });
    const value = valueAt(map, this.voxel);
    const ground = this.contrast ? valueAt(this.images.get(this.contrast), this.voxel) : null;
    Object.assign(this.readout.dataset, { voxel: this.voxel.join(), label: value, value: ground ?? "" });
    this.readout.replaceChildren(facts([
      ["Label", labels.find((label) => label.value === value && value > 0)?.name ?? NOTHING],
      [this.contrast ? CONTRAST_WORDS[this.contrast] : "", this.contrast ? +ground.toFixed(2) : null],
      ["Disagreement", this.disagreement ? `${valueAt(this.disagreement, this.voxel)} %` : null],
      ["Voxel", this.voxel.join(", ")],
      ["mm (RAS+)", mm.map((one) => one.toFixed(1)).join(", ")],
      ["Image half", `patient’s ${halfOf(map, mm)}`],
    ], "readout"));
  }
}
