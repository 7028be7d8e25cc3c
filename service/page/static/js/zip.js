// Reads zip archives (PKWARE's APPNOTE 6.3): enough to tell NIfTI from DICOM and to take NIfTI out.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LONGEST_TAIL = 65557; // end record and the longest comment

/** @typedef {{name: string, method: number, packed: number, size: number, offset: number}} Entry */

/**
 * @param {Blob} file
 * @returns {Promise<Entry[]|null>} null: of the large kind (zip64), which is not read here
 * @throws {Error} it is no archive
 */
export async function entriesOf(file) {
  const start = Math.max(0, file.size - LONGEST_TAIL);
  const tail = new DataView(await file.slice(start).arrayBuffer());
  const end = lastEnd(tail);
  const count = tail.getUint16(end + 10, true);
  const size = tail.getUint32(end + 12, true);
  const offset = tail.getUint32(end + 16, true);
  if (count === 0xffff || offset === 0xffffffff) return null;
  return directory(new DataView(await file.slice(offset, offset + size).arrayBuffer()), count);
}

/** One file of an archive, unpacked. @param {Blob} file @param {Entry} entry @returns {Promise<File>} */
export async function unpack(file, entry) {
  const head = new DataView(await file.slice(entry.offset, entry.offset + 30).arrayBuffer());
  const start = entry.offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = file.slice(start, start + entry.packed);
  if (entry.method === 0) return new File([packed], entry.name);
  if (entry.method !== 8) throw new Error(`A file of this zip archive is packed in a way that is not known here (${entry.method}).`);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new File([await new Response(stream).blob()], entry.name);
}

function lastEnd(tail) {
  for (let at = tail.byteLength - 22; at >= 0; at -= 1) {
    if (tail.getUint32(at, true) === END) return at;
  }
  throw new Error("This is no zip archive.");
}

function directory(view, count) {
  const found = [];
  for (let at = 0, left = count; left > 0; left -= 1) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("This zip archive is damaged.");
    const [nameLength, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, nameLength));
    found.push({
      name, method: view.getUint16(at + 10, true), packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true), offset: view.getUint32(at + 42, true),
    });
    at += 46 + nameLength + extra + comment;
  }
  return found;
}
