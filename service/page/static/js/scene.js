// What NiiVue is told: volumes, colours, crosshair. The only file that knows its interface (0.69.0).

import { niivue } from "./niivue.js";

/** Of Okabe and Ito's palette: told apart by every kind of colour vision, and by lightness. */
export const COLOURS = { NCR: [213, 94, 0], ED: [86, 180, 233], ET: [240, 228, 66] };
export const VIEWS = { all: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };
const LEAST_DISAGREEMENT = 5; // per cent; below it nothing is painted

/** @typedef {{value: number, name: string}} Label */

export class Scene {
  /** @param {HTMLCanvasElement} canvas @param {(mm: number[]) => void} onMove */
  static async on(canvas, onMove) {
    const library = await niivue();
    const nv = new library.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.5, crosshairGap: 5, show3Dcrosshair: true,
      fontColor: [1, 1, 1, 1], fontMinPx: 15, showAllOrientationMarkers: true,
      dragAndDropEnabled: false, isForceMouseClickToVoxelCenters: true, isRadiologicalConvention: true,
      loadingText: "", logLevel: "error", multiplanarLayout: 2, multiplanarPadPixels: 24, multiplanarShowRender: 1, sliceType: 3,
    });
    await nv.attachToCanvas(canvas);
    const letters = nv.drawSliceOrientationText.bind(nv); // it would draw over the right and lower edges, where they are cut off
    nv.drawSliceOrientationText = ([left, top, width, height], ...rest) => letters([left + 4, top, width - 12, height - 8], ...rest);
    nv.onLocationChange = ({ mm }) => onMove([mm[0], mm[1], mm[2]]);
    return new Scene(library, nv);
  }

  constructor(library, nv) {
    this.library = library;
    this.nv = nv;
    this.made = new Map();
  }

  /** Forget all images. */
  clear() {
    this.made.clear();
    Object.assign(this.nv, { volumes: [], overlays: [] });
  }

  /** @param {string} name @param {import("./nifti.js").Volume} volume @param {Label[]|null} labels */
  async add(name, volume, labels) {
    const image = await this.library.NVImage.loadFromUrl({ url: `${name}.nii`, name: `${name}.nii`, buffer: volume.bytes.slice(0) });
    if (labels) this.paint(image, labels, new Set());
    if (name === "disagreement") Object.assign(image, { cal_min: LEAST_DISAGREEMENT, cal_max: 50, colormap: "plasma" });
    this.made.set(name, image);
  }

  /** @param {string} name @param {Label[]} labels @param {Set<string>} hidden names that are not shown */
  recolour(name, labels, hidden) {
    this.paint(this.made.get(name), labels, hidden);
    this.nv.updateGLVolume();
  }

  paint(image, labels, hidden) {
    const shown = labels.filter(({ name }) => COLOURS[name]);
    const channel = (index) => [0, ...shown.map(({ name }) => COLOURS[name][index])];
    image.setColormapLabel({
      R: channel(0), G: channel(1), B: channel(2), I: [0, ...shown.map(({ value }) => value)],
      A: [0, ...shown.map(({ name }) => (hidden.has(name) ? 0 : 255))], labels: ["", ...shown.map(({ name }) => name)],
    });
  }

  /** @param {{name: string, opacity: number}[]} layers the first is the ground */
  show(layers) {
    const volumes = layers.map(({ name, opacity }) => Object.assign(this.made.get(name), { opacity }));
    // what its own setVolume does, without drawing once for each
    Object.assign(this.nv, { volumes, back: volumes[0], overlays: volumes.slice(1) });
    this.nv.updateGLVolume();
    this.nv.createOnLocationChange();
  }

  /** @param {number} layer @param {number} opacity 0 … 1 */
  opacity(layer, opacity) {
    this.nv.setOpacity(layer, opacity);
  }

  /** @param {keyof typeof VIEWS} view */
  view(view) {
    this.nv.setSliceType(VIEWS[view]);
  }

  /** @param {boolean} radiological the patient's left on the right */
  side(radiological) {
    this.nv.setRadiologicalConvention(radiological);
  }

  /** @param {number[]} mm RAS+ */
  goTo(mm) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm, 0, true);
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }
}
