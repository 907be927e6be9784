// Files that come together: which are things, and which only belong to others (a recording's data, a mesh's materials).

import { about } from "./things.js";

const MOST = 200;
const WITH_PARTS = new Set(["vhdr", "set", "obj", "gltf"]);
const PICTURES = new Set(["png", "jpg", "jpeg", "bmp", "tga", "webp"]);
const ending = (file) => file.name.split(".").at(-1).toLowerCase();

// Files -> [{file, beside}].
export function grouped(files) {
  const read = new Set(Object.values(about.modalities).flatMap((sensor) => sensor.extensions));
  const heads = files.filter((file) => WITH_PARTS.has(ending(file)));
  const parts = heads.length ? files.filter((file) => !heads.includes(file) && (!read.has(ending(file)) || PICTURES.has(ending(file)))) : [];
  return files
    .filter((file) => !parts.includes(file) || PICTURES.has(ending(file)))
    .map((file) => ({ file, beside: heads.includes(file) ? parts : [] }));
}

// The files of a drop or a paste, those within folders too.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (found.length >= MOST || entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push(await new Promise((done, failed) => entry.file(done, failed)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}
