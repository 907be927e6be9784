// What is text only stands in the address: words, examples, their weights, and labels; so that it can be linked, and "back" goes back.

import { add, remove, things } from "./things.js";
import { labels, setLabels } from "./labels.js";

const KINDS = ["text", "example"];
let applying = false;

const keyOf = (thing) => KINDS.filter((kind) => thing[kind] !== undefined).map((kind) => `${kind} ${thing[kind]}`).at(-1);

function state() {
  const said = new URLSearchParams();
  for (const thing of things) {
    const key = keyOf(thing);
    if (!key) continue;
    const [kind, value] = parted(key);
    said.append(kind, value);
    if (thing.weight) said.append("weight", thing.weight);
  }
  if (labels().length) said.set("labels", labels().join(","));
  return said.toString();
}

const parted = (key) => [key.slice(0, key.indexOf(" ")), key.slice(key.indexOf(" ") + 1)];
const sorted = (said) => [...new URLSearchParams(said)].map(([key, value]) => `${key} ${value}`).sort().join();

// Write what there is into the address, as one step that "back" undoes; `quietly` as no step of its own.
export function remember(quietly = false) {
  const now = state();
  if (applying || sorted(now) === sorted(location.hash.slice(1))) return;
  const address = now ? `#${now}` : location.pathname;
  if (quietly) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

// Make the page show what the address says; files that were dropped stay.
export async function follow(addExample) {
  if (applying) return;
  applying = true;
  try {
    const said = new URLSearchParams(location.hash.slice(1));
    const wanted = [];
    for (const [kind, value] of said) {
      if (KINDS.includes(kind)) wanted.push({ key: `${kind} ${value}`, weight: 0 });
      else if (kind === "weight" && wanted.length) wanted.at(-1).weight = Math.max(-1, Math.min(1, Number(value) || 0));
    }
    const listed = (said.get("labels") ?? "").split(",").filter(Boolean);
    if (listed.join() !== labels().join()) setLabels(listed);
    for (const thing of [...things]) {
      const at = wanted.findIndex((one) => one.key === keyOf(thing));
      if (at >= 0) wanted.splice(at, 1);
      else if (keyOf(thing)) remove(thing);
    }
    for (const { key, weight } of wanted) {
      const [kind, value] = parted(key);
      if (kind === "text") void add({ text: value, weight });
      else await addExample(Number(value), weight);
    }
  } finally {
    applying = false;
  }
  remember(true);
}

// How many things a link cannot carry.
export const unlinked = () => things.filter((thing) => !keyOf(thing)).length;
