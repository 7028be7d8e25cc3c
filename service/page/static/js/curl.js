// A job as a curl command; its files get plain names, for those of a study may name a patient.

const FILES = {
  nifti: ["t1=@t1.nii.gz", "t1ce=@t1ce.nii.gz", "t2=@t2.nii.gz", "flair=@flair.nii.gz"],
  dicom: ["dicom=@study.zip"],
};

/** @param {any} job @param {"nifti"|"dicom"} source @param {string} origin @returns {string} */
export function curlOf(job, source, origin) {
  const fields = [...(FILES[source] ?? FILES.nifti), `model=${job.model}`, ...optionsOf(job.options), "images=true"];
  const parts = fields.map((field) => `  -F ${/^[\w.=@/-]+$/.test(field) ? field : `'${field}'`}`);
  const key = "  ${SEGMAMBA_KEY:+-H \"Authorization: Bearer $SEGMAMBA_KEY\"}";
  return [`curl -f ${origin}/jobs`, key, ...parts].join(" \\\n");
}

/** @param {Record<string, any>} options as the job tells them */
function optionsOf(options) {
  const plain = Object.entries(options).filter(([name, value]) =>
    !["series", "images"].includes(name) && value !== null && value !== false && typeof value !== "object");
  const off = Object.entries(options).filter(([name, value]) => name === "postprocess" && value === false);
  const series = Object.entries(options.series ?? {}).map(([contrast, uid]) => `series_${contrast}=${uid}`);
  return [...[...plain, ...off].map(([name, value]) => `${name}=${value}`), ...series];
}
