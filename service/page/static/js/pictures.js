// Fetches the images of a result for the viewer.

import { call } from "./api.js";
import { nearestLabelled, readNifti, toWorld } from "./nifti.js";
import { CONTRASTS } from "./words.js";

/** @param {import("./results.js").Result} result @param {AbortSignal} signal */
export async function fetchPictures({ files, report }, signal) {
  const fetched = async (name) => {
    const file = files.find((one) => one.name === name);
    return file ? readNifti(await (await call(file.href, { signal })).arrayBuffer()) : undefined;
  };
  const images = new Map();
  for (const contrast of CONTRASTS) {
    const volume = await fetched(`${contrast}.nii.gz`);
    if (volume) images.set(contrast, volume);
  }
  const map = await fetched("segmentation.nii.gz");
  return { images, map, disagreement: await fetched("disagreement.nii.gz"), target: targetOf(report, map) };
}

/** RAS+ mm of a voxel of the largest lesion, near its middle; null where nothing was found. */
function targetOf({ statistics }, map) {
  const place = statistics.structures.WT?.lesions?.[0]?.place;
  return place ? toWorld(map, nearestLabelled(map, place.centroid_voxel, place.box_voxel)) : null;
}
