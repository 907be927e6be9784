// Files to take away: JSON and CSV as texts, npz as numpy reads it.

import { bytes, el } from "./dom.js";

export function download(name, content) {
  const address = URL.createObjectURL(new Blob([content]));
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function csv(rows) {
  const quoted = (value) => {
    let text = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // never a formula for a spreadsheet
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

// names, modalities: texts [n]; embeddings: base64 of float32 [n, E]; weights [n].
export function npz(names, modalities, embeddings, weights) {
  const rows = embeddings.map(bytes);
  const width = rows[0].length / 4;
  const all = new Uint8Array(rows.length * width * 4);
  rows.forEach((row, i) => all.set(row, i * row.length));
  return zip({
    "embeddings.npy": npy("<f4", `(${rows.length}, ${width})`, all),
    "names.npy": texts(names),
    "modalities.npy": texts(modalities),
    "weights.npy": npy("<f4", `(${weights.length},)`, new Uint8Array(Float32Array.from(weights).buffer)),
  });
}

function texts(listed) {
  const points = listed.map((text) => [...text].map((letter) => letter.codePointAt(0)));
  const width = Math.max(1, ...points.map((row) => row.length));
  const all = new Uint32Array(listed.length * width);
  points.forEach((row, i) => all.set(row, i * width));
  return npy(`<U${width}`, `(${listed.length},)`, new Uint8Array(all.buffer));
}

function npy(kind, shape, data) {
  const head = `{'descr': '${kind}', 'fortran_order': False, 'shape': ${shape}, }`;
  const padded = `${head.padEnd(64 * Math.ceil((head.length + 11) / 64) - 11)}\n`;
  const size = [padded.length & 255, padded.length >> 8];
  return joined([new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, ...size]), new TextEncoder().encode(padded), data]);
}

// A zip archive whose files are stored as they are.
function zip(files) {
  const [parts, listed] = [[], []];
  let offset = 0;
  for (const [name, data] of Object.entries(files)) {
    const title = new TextEncoder().encode(name);
    const common = [half(20), half(0x800), half(0), half(0), half(33), word(crc(data)), word(data.length), word(data.length), half(title.length), half(0)];
    const local = joined([word(0x04034b50), ...common, title, data]);
    listed.push(joined([word(0x02014b50), half(20), ...common, half(0), half(0), half(0), word(0), word(offset), title]));
    parts.push(local);
    offset += local.length;
  }
  const central = joined(listed);
  const count = half(parts.length);
  return joined([...parts, central, word(0x06054b50), word(0), count, count, word(central.length), word(offset), half(0)]);
}

const half = (value) => new Uint8Array(Uint16Array.of(value).buffer);
const word = (value) => new Uint8Array(Uint32Array.of(value).buffer);

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function crc(data) {
  let value = -1;
  for (const byte of data) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return (value ^ -1) >>> 0;
}
