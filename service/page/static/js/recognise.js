// Tells which contrast a NIfTI file is by its name; the name itself never leaves the browser.

/** Spellings that BraTS, nnU-Net and scanners use. @type {Record<string, string>} */
const SPELLINGS = {
  t1: "t1", t1n: "t1", t1w: "t1", t1ce: "t1ce", t1c: "t1ce", t1gd: "t1ce", t1km: "t1ce", t1post: "t1ce",
  t2: "t2", t2w: "t2", flair: "flair", t2f: "flair", t2flair: "flair",
};
const CHANNELS = ["t1", "t1ce", "t2", "flair"];
const AGENT = /^(km|gd|gad|contrast|post|ce|c\+|\+c)$/;
const DENIAL = /^(no|non|without|wo|pre|ohne|sans)$/; // before it

/** @typedef {{contrast: string|null, reason: string, sure: boolean}} Recognised */

/** @param {string} name of the file @returns {Recognised} */
export function recognise(name) {
  const words = name.toLowerCase().split("/").pop().replace(/\.nii(\.gz)?$/, "").split(/[^a-z0-9+]+/);
  const last = words[words.length - 1];
  if (/^(seg|mask|label|labels)$/.test(last)) return unknown("its name says that it is a label map");
  const channel = /^000([0-3])$/.exec(last);
  if (channel) return found(CHANNELS[Number(channel[1])], `ends in ${last}, as nnU-Net counts channels`, false);
  const agent = words.find((word, at) => AGENT.test(word) && !DENIAL.test(words[at - 1] ?? ""));
  if (SPELLINGS[last] && !(SPELLINGS[last] === "t1" && agent)) return found(SPELLINGS[last], `its name ends in “${last}”`, true);
  const spelt = words.filter((word) => SPELLINGS[word]);
  const kinds = new Set(spelt.map((word) => SPELLINGS[word]));
  if (kinds.has("flair")) return found("flair", "“flair” is in its name", true);
  if (kinds.size !== 1) return unknown(kinds.size ? "its name speaks of several contrasts" : "its name does not say");
  if (kinds.has("t1") && agent) return found("t1ce", `“${spelt[0]}” and “${agent}” are in its name`, false);
  return found([...kinds][0], `“${spelt[0]}” is in its name`, false);
}

const found = (contrast, reason, sure) => ({ contrast, reason, sure });
const unknown = (reason) => ({ contrast: null, reason, sure: false });
