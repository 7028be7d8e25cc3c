// Takes what is dropped or chosen, and tells what kind of study it is.

import { entriesOf, unpack } from "./zip.js";
import { recognise } from "./recognise.js";
import { CONTRASTS } from "./words.js";
import { call } from "./api.js";

const NIFTI = /\.nii(\.gz)?$/i;
const NO_IMAGE = /(^|\/)(\.|__MACOSX\/)|\.(json|txt|csv|bval|bvec|pdf|png|jpe?g)$/i;
const MOST_FILES = 5000;
const SOON = 10; // seconds; who is to wait longer is told so

/**
 * @typedef {object} Study
 * @property {"nifti"|"dicom"} kind
 * @property {{file: File, name: string, contrast: string|null, reason: string, sure: boolean}[]} images of NIfTI
 * @property {File[]} dicom one archive, or single files
 * @property {Record<string, string>} series contrast → uid that the user chose
 * @property {number} bytes
 */

/** @param {{file: File, path: string}[]} taken @returns {Promise<Study>} @throws {Error} nothing can be made of it */
export async function studyOf(taken) {
  const files = taken.filter(({ path }) => !NO_IMAGE.test(path));
  if (files.length === 0) throw new Error("There is no image among these files.");
  if (files.length === 1 && /\.zip$/i.test(files[0].path)) return studyOfZip(files[0].file);
  const nifti = files.filter(({ path }) => NIFTI.test(path));
  if (nifti.length > 0) return niftiStudy(nifti);
  if (files.length > MOST_FILES) throw new Error(`More than ${MOST_FILES} files: send them as one zip archive.`);
  return dicomStudy(files.map(({ file }) => file));
}

async function studyOfZip(file) {
  const entries = (await entriesOf(file)) ?? []; // the service reads what is too large for here
  const inside = entries.filter(({ name }) => NIFTI.test(name) && !NO_IMAGE.test(name));
  if (inside.length === 0) return dicomStudy([file]);
  const unpacked = await Promise.all(inside.map((entry) => unpack(file, entry)));
  return niftiStudy(unpacked.map((one, i) => ({ file: one, path: inside[i].name })));
}

/** A contrast that two files claim goes to the first whose name is sure; the user may say otherwise. */
function niftiStudy(files) {
  const images = files.map(({ file, path }) => ({ file, name: path, ...recognise(path) }));
  for (const contrast of CONTRASTS) {
    const claims = images.filter((image) => image.contrast === contrast);
    const keeper = claims.find((image) => image.sure) ?? claims[0];
    for (const image of claims.filter((one) => one !== keeper)) {
      Object.assign(image, { contrast: null, reason: `${image.reason}, as does another file's` });
    }
  }
  if (images.length === 4) takeTheLast(images);
  return { kind: "nifti", images, dicom: [], series: {}, bytes: sum(files.map(({ file }) => file)) };
}

/** Of four files the fourth is the contrast that is left. */
function takeTheLast(images) {
  const open = images.filter((image) => image.contrast === null && !/label map/.test(image.reason));
  const left = CONTRASTS.filter((contrast) => !images.some((image) => image.contrast === contrast));
  if (open.length !== 1 || left.length !== 1) return;
  Object.assign(open[0], { contrast: left[0], reason: `${open[0].reason}; the other three are told`, sure: false });
}

const dicomStudy = (files) => ({ kind: "dicom", images: [], dicom: files, series: {}, bytes: sum(files) });
const sum = (files) => files.reduce((bytes, file) => bytes + file.size, 0);

/** The files of a drop, folders walked through. @param {DataTransfer} transfer */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return chosen(transfer.files);
  return (await Promise.all(entries.map(walk))).flat();
}

/** @param {FileList} list */
export const chosen = (list) => [...list].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(walk))).flat();
}

/**
 * The sample study, as files; waits while the service draws it for somebody else.
 * @param {(words: string) => void} say @param {AbortSignal} signal
 */
export async function sampleFiles(say, signal) {
  const found = [];
  for (const contrast of CONTRASTS) { // one after the other: the first one has them drawn
    const name = `${contrast}.nii.gz`;
    const answer = await drawn(`/page/sample/${name}`, say, signal);
    found.push({ file: new File([await answer.blob()], name), path: name });
  }
  return found;
}

async function drawn(path, say, signal) {
  for (;;) {
    try {
      return await call(path, { signal });
    } catch (error) {
      if (error.status !== 503 || !error.retryAfter || error.retryAfter > SOON) throw error;
      say(error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
      signal.throwIfAborted();
    }
  }
}

/**
 * The form of a study. Parts have plain names: those of files may name a patient.
 * @param {Study} study
 * @param {Record<string, string>} [options]
 */
export function formOf(study, options = {}) {
  const form = new FormData();
  for (const image of study.images.filter((one) => one.contrast)) {
    const ending = /\.gz$/i.test(image.name) ? ".nii.gz" : ".nii";
    form.append(image.contrast, image.file, image.contrast + ending);
  }
  study.dicom.forEach((file, number) => form.append("dicom", file, study.dicom.length === 1 ? "study.zip" : `${number}.dcm`));
  for (const [contrast, uid] of Object.entries(study.series)) form.append(`series_${contrast}`, uid);
  for (const [name, value] of Object.entries(options)) if (value !== "") form.append(name, value);
  return form;
}
