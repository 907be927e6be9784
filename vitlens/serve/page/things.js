// What was added: texts and files, each with what the service found in it. Everything else on the page follows these.

import { announce, dark } from "./dom.js";
import { Problem, ask } from "./service.js";

const AT_ONCE = 2;
const watchers = new Set();
let last = 0;

export const things = [];
export const about = { modalities: {}, limits: {}, examples: [] };

// How a thing is called where its card is not beside it.
export const called = (thing) => (thing.text !== undefined ? `“${thing.text}”` : `${(thing.found ?? "").replaceAll("_", " ")} ${thing.name}`);
export const ready = () => things.filter((thing) => thing.embedding);
export const onChange = (watcher) => watchers.add(watcher);

export function changed() {
  for (const watcher of watchers) watcher();
}

// Call `watcher` when other things are ready than before.
export function onReady(watcher) {
  let before = "";
  onChange(() => {
    const now = ready().map((thing) => `${thing.id} ${thing.run}`).join();
    if (now === before) return;
    before = now;
    watcher();
  });
}

// given: {text} or {file, beside, modality, options}, with `example` (its number) where it is one.
export function add(given) {
  const thing = { options: {}, beside: [], modality: "", weight: 0, ...given, id: ++last, run: 0, state: "waiting" };
  thing.name = given.text ?? given.file.name;
  if (given.text !== undefined) thing.modality = "text";
  things.push(thing);
  changed();
  return load(thing);
}

export function remove(thing) {
  const at = things.indexOf(thing);
  if (at < 0) return;
  things.splice(at, 1);
  thing.run++;
  if (thing.address) URL.revokeObjectURL(thing.address);
  changed();
}

// Have a thing looked at and embedded (again); an earlier run that is still under way is forgotten.
export async function load(thing) {
  const run = ++thing.run;
  Object.assign(thing, { state: "waiting", problem: null, preview: null, embedding: null, remarks: [] });
  changed();
  const still = () => run === thing.run && things.includes(thing);
  await turn(async () => {
    if (!still()) return;
    try {
      checkSize(thing);
      const preview = await ask("/v1/preview", request(thing, { dark: dark.matches }));
      if (!still()) return;
      Object.assign(thing, { preview, found: preview.modality, state: "seen" });
      changed();
      const reply = await ask("/v1/embeddings", request(thing, { encoding_format: "base64" }, preview.modality));
      if (!still()) return;
      const texts = [...(preview.remarks ?? []), ...(reply.remarks ?? []).map((one) => one.text)];
      Object.assign(thing, { embedding: reply.data[0].embedding, state: "ready", remarks: [...new Set(texts)] });
      announce(`${thing.name}: ${thing.found}`);
    } catch (problem) {
      if (!still()) return;
      Object.assign(thing, { state: "failed", problem: known(problem) });
    }
    changed();
  });
}

// Pictures are drawn for a light or a dark page: draw them anew when it changes.
dark.addEventListener("change", async () => {
  for (const thing of things.filter((one) => one.preview?.picture)) {
    const run = thing.run;
    const { picture } = await ask("/v1/preview", request(thing, { dark: dark.matches }, thing.found)).catch(() => ({}));
    if (run !== thing.run || !picture) continue;
    thing.preview.picture = picture;
    thing.repainted = (thing.repainted ?? 0) + 1;
    changed();
  }
});

function known(problem) {
  if (problem instanceof Problem) return problem;
  console.error(problem);
  return new Problem("This page could not work with the service's answer; reload it.");
}

// A thing as a request: a form with its file, or JSON with its text.
export function request(thing, fields, modality = thing.modality) {
  if (thing.text !== undefined) return { input: [thing.text], ...fields };
  const form = new FormData();
  form.append(modality || "file", thing.file, thing.file.name);
  for (const other of thing.beside) form.append("beside", other, other.name);
  for (const [option, value] of Object.entries(thing.options)) {
    if (modality) form.append(`${modality}.${option}`, typeof value === "string" ? value : JSON.stringify(value));
  }
  for (const [key, value] of Object.entries(fields)) form.append(key, String(value));
  return form;
}

function checkSize(thing) {
  if (!thing.file || !about.limits.file_bytes) return;
  const megabytes = (size) => `${+(size / 1e6).toFixed(1)} MB`;
  const together = [thing.file, ...thing.beside].reduce((sum, file) => sum + file.size, 0);
  for (const [what, size, limit] of [
    [thing.file.name, thing.file.size, about.limits.file_bytes],
    [`${thing.file.name} and what belongs to it`, together, about.limits.request_bytes],
  ]) {
    if (size > limit.value) {
      throw new Problem(`${what}: ${megabytes(size)}, and this service takes at most ${megabytes(limit.value)} (${limit.option} changes that)`);
    }
  }
  if (!thing.file.size) throw new Problem(`${thing.file.name}: an empty file`);
}

// At most AT_ONCE of these run; the others wait for their turn.
let running = 0;
const waiting = [];
async function turn(work) {
  if (running >= AT_ONCE) await new Promise((go) => waiting.push(go));
  running++;
  try {
    await work();
  } finally {
    running--;
    waiting.shift()?.();
  }
}

// A thing as a part of a request that needs no upload again.
export const part = (thing, weight = 1) => ({ type: "embedding", embedding: thing.embedding, modality: thing.found, weight });

// The mixture that the sliders say, as an item; null where all weights are 0.
export function mixture() {
  const parts = ready().filter((thing) => thing.weight);
  return parts.length ? parts.map((thing) => part(thing, thing.weight)) : null;
}
