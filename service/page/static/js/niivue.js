// Loads NiiVue when the first picture is wanted: 0.8 MB that most visits to the form do not need.

const ADDRESS = "/page/vendor/niivue-0.69.0.umd.js";

/** @type {Promise<any>|null} */
let loading = null;

/** @returns {Promise<any>} the library */
export function niivue() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = ADDRESS;
    script.addEventListener("load", () => resolve(globalThis.niivue));
    script.addEventListener("error", () => reject(new Error("The viewer could not be loaded.")));
    document.head.append(script);
  });
  return loading;
}
