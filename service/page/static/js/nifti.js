// Reads NIfTI images, version 1 and 2: voxels, and where they lie (voxel index to RAS+ mm).

/** Datatype codes of the standard. @type {Record<number, any>} */
const ARRAYS = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array,
  256: Int8Array, 512: Uint16Array, 768: Uint32Array,
};

/**
 * @typedef {object} Volume
 * @property {ArrayBuffer} bytes the whole file, unpacked
 * @property {[number, number, number]} shape
 * @property {ArrayLike<number>} voxels first axis fastest, as stored
 * @property {number} slope
 * @property {number} inter
 * @property {number[][]} affine three rows of four
 */

/** @param {ArrayBuffer} bytes .nii or .nii.gz @returns {Promise<Volume>} */
export async function readNifti(bytes) {
  const first = new Uint8Array(bytes, 0, 2);
  const packed = first[0] === 0x1f && first[1] === 0x8b;
  return parse(packed ? await inflate(bytes) : bytes);
}

/** Where both versions of the standard keep what is needed here, and how. */
const LAYOUTS = {
  348: { float: "getFloat32", step: 4, type: 70, shape: [42, 2], code: ["getInt16", 254], start: ["getFloat32", 108],
    spacing: 76, slope: 112, quaternion: 256, offset: 268, rows: 280 },
  540: { float: "getFloat64", step: 8, type: 12, shape: [24, 8], code: ["getInt32", 348], start: ["getBigInt64", 168],
    spacing: 104, slope: 176, quaternion: 352, offset: 376, rows: 400 },
};

/** @param {ArrayBuffer} bytes @returns {Volume} */
function parse(bytes) {
  const head = new DataView(bytes, 0, Math.min(540, bytes.byteLength));
  const layout = LAYOUTS[head.getInt32(0, true)];
  if (!layout) throw new Error("not a little-endian NIfTI file");
  const [first, width] = layout.shape; // low bytes: no axis is as long as the high ones could say
  const shape = [0, 1, 2].map((axis) => Math.max(1, head.getUint16(first + axis * width, true)));
  const Values = ARRAYS[head.getInt16(layout.type, true)];
  if (!Values) throw new Error("a type of voxels that is not known here");
  const start = Number(head[layout.start[0]](layout.start[1], true));
  const end = start + shape[0] * shape[1] * shape[2] * Values.BYTES_PER_ELEMENT;
  const numbers = (place, count) => Array.from({ length: count }, (_, i) => head[layout.float](place + i * layout.step, true));
  const [slope, inter] = numbers(layout.slope, 2);
  const known = head[layout.code[0]](layout.code[1], true) > 0;
  return {
    bytes, shape, voxels: new Values(bytes.slice(start, end)),
    slope: slope === 0 || Number.isNaN(slope) ? 1 : slope, inter: inter || 0,
    affine: known ? [0, 1, 2].map((row) => numbers(layout.rows + 4 * row * layout.step, 4))
      : qform(numbers(layout.quaternion, 3), numbers(layout.spacing, 4), numbers(layout.offset, 3)),
  };
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Quaternion, spacing and offset of the header (nifti1.h, method 2). */
function qform([b, c, d], [side, sx, sy, sz], offset) {
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const turned = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  return turned.map(([x, y, z], row) => [x * sx, y * sy, z * sz * (side < 0 ? -1 : 1), offset[row]]);
}

/** @param {Volume} volume @param {number[]} voxel @returns {number[]} RAS+ mm of its centre */
export const toWorld = ({ affine }, voxel) =>
  affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);

/**
 * Which array axis runs most along R, A and S; each is taken once, the largest share first.
 * @param {Volume} volume
 * @returns {number[]} array axes in that order
 */
export function axesOf({ affine }) {
  const step = [0, 1, 2].map((axis) => Math.hypot(...affine.map((row) => row[axis])));
  const share = ([body, axis]) => Math.abs(affine[body][axis]) / step[axis];
  const pairs = [0, 1, 2].flatMap((body) => [0, 1, 2].map((axis) => [body, axis]));
  const found = [-1, -1, -1];
  for (const [body, axis] of pairs.sort((one, other) => share(other) - share(one))) {
    if (found[body] < 0 && !found.includes(axis)) found[body] = axis;
  }
  return found;
}

/** @param {Volume} volume @param {ArrayLike<number>} mm RAS+ @returns {"left"|"right"} the patient's, of the image's middle */
export function halfOf(volume, mm) {
  const [middle] = toWorld(volume, volume.shape.map((count) => (count - 1) / 2));
  return mm[0] < middle ? "left" : "right";
}

/** @param {Volume} volume @param {ArrayLike<number>} mm @returns {number[]} the nearest voxel, inside the image */
export function toVoxel({ affine, shape }, mm) {
  const [a, b, c] = affine;
  const right = affine.map((row, i) => mm[i] - row[3]);
  const determinant = dot(a, cross(b, c));
  const inverse = [cross(b, c), cross(c, a), cross(a, b)]; // columns of the inverse, times the determinant
  return shape.map((count, axis) => {
    const at = (inverse[0][axis] * right[0] + inverse[1][axis] * right[1] + inverse[2][axis] * right[2]) / determinant;
    return Math.min(count - 1, Math.max(0, Math.round(at)));
  });
}

/** @param {Volume} volume @param {number[]} voxel @returns {number} its value, scaled */
export function valueAt({ voxels, shape, slope, inter }, [i, j, k]) {
  return voxels[i + shape[0] * (j + shape[1] * k)] * slope + inter;
}

/**
 * Dice overlap of some labels in two maps on one grid; null where neither has any.
 * @param {Volume} one @param {Set<number>} ofOne @param {Volume} other @param {Set<number>} ofOther
 */
export function overlap(one, ofOne, other, ofOther) {
  if (one.shape.join() !== other.shape.join()) return null;
  let [inOne, inOther, inBoth] = [0, 0, 0];
  for (let at = 0; at < one.voxels.length; at += 1) {
    const first = ofOne.has(one.voxels[at]);
    const second = ofOther.has(other.voxels[at]);
    if (first) inOne += 1;
    if (second) inOther += 1;
    if (first && second) inBoth += 1;
  }
  return inOne + inOther === 0 ? null : (2 * inBoth) / (inOne + inOther);
}

/**
 * The labelled voxel nearest to a place, inside a box: a centroid may lie outside of its lesion.
 * @param {Volume} map @param {number[]} centre @param {[number[], number[]]} box half-open
 */
export function nearestLabelled(map, centre, [from, to]) {
  let [best, least] = [centre.map(Math.round), Infinity];
  for (let k = from[2]; k < to[2]; k += 1) {
    for (let j = from[1]; j < to[1]; j += 1) {
      for (let i = from[0]; i < to[0]; i += 1) {
        const away = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2;
        if (away < least && valueAt(map, [i, j, k]) > 0) [best, least] = [[i, j, k], away];
      }
    }
  }
  return best;
}

const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
