// What is text only stands in the address: words, examples and labels; so that it can be linked, and "back" goes back.

import { add, remove, things } from "./things.js";
import { labels, setLabels } from "./labels.js";

let applying = false;

function state() {
  const said = new URLSearchParams();
  for (const thing of things) {
    if (thing.example !== undefined) said.append("example", thing.example);
    else if (thing.text !== undefined) said.append("text", thing.text);
  }
  if (labels().length) said.set("labels", labels().join(","));
  return said.toString();
}

// Write what there is into the address, as one step that "back" undoes.
export function remember() {
  const now = state();
  if (!applying && now !== location.hash.slice(1)) history.pushState(null, "", now ? `#${now}` : location.pathname);
}

// Make the page show what the address says; files that were dropped stay.
export function follow(addExample) {
  applying = true;
  try {
    const said = new URLSearchParams(location.hash.slice(1));
    const wanted = [...said].filter(([key]) => key === "text" || key === "example").map(([key, value]) => `${key} ${value}`);
    for (const thing of [...things]) {
      const mine = thing.example !== undefined ? `example ${thing.example}` : thing.text !== undefined ? `text ${thing.text}` : null;
      const at = wanted.indexOf(mine);
      if (at >= 0) wanted.splice(at, 1);
      else if (mine) remove(thing);
    }
    for (const one of wanted) {
      const [key, value] = [one.slice(0, one.indexOf(" ")), one.slice(one.indexOf(" ") + 1)];
      if (key === "text") add({ text: value });
      else addExample(Number(value));
    }
    const listed = (said.get("labels") ?? "").split(",").filter(Boolean);
    if (listed.join() !== labels().join()) setLabels(listed);
  } finally {
    applying = false;
  }
}

// How many things a link cannot carry.
export const unlinked = () => things.filter((thing) => thing.text === undefined && thing.example === undefined).length;
