// Fetches the images of a result for the viewer.

import { call } from "./api.js";
import { nearestLabelled, readNifti, toWorld } from "./nifti.js";
import { CONTRASTS } from "./words.js";

/** @typedef {import("./results.js").Result} Result */

/** @param {Result} result @param {AbortSignal} signal */
export async function fetchPictures(result, signal) {
  const images = await fetchImages(result, signal);
  const disagreement = await fetched(result, "disagreement.nii.gz", signal);
  return { images, disagreement, ...(await fetchMap(result, signal)) };
}

/** The contrasts that were kept, by name. @param {Result} result @param {AbortSignal} signal */
export async function fetchImages(result, signal) {
  const images = new Map();
  for (const contrast of CONTRASTS) {
    const volume = await fetched(result, `${contrast}.nii.gz`, signal);
    if (volume) images.set(contrast, volume);
  }
  return images;
}

/** The label map, and where its largest lesion is. @param {Result} result @param {AbortSignal} signal */
export async function fetchMap(result, signal) {
  const map = await fetched(result, "segmentation.nii.gz", signal);
  return { map, target: targetOf(result.report, map) };
}

async function fetched({ files }, name, signal) {
  const file = files.find((one) => one.name === name);
  return file ? readNifti(await (await call(file.href, { signal })).arrayBuffer()) : undefined;
}

/** RAS+ mm of a voxel of the largest lesion, near its middle; null where nothing was found. */
function targetOf({ statistics }, map) {
  const place = statistics.structures.WT?.lesions?.[0]?.place;
  return place ? toWorld(map, nearestLabelled(map, place.centroid_voxel, place.box_voxel)) : null;
}
