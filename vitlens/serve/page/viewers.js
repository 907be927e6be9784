// How things look and sound: the picture that their sensor draws, points to turn, a waveform, electrodes, playback.

import { el, numbers } from "./dom.js";
import { turning } from "./turning.js";

export function shown(thing) {
  if (thing.text !== undefined) return [];
  const { picture, explore, modality } = thing.preview;
  const found = [];
  if (explore.points) found.push(turning(numbers(explore.points), numbers(explore.colours), `${thing.name}: points to turn`));
  if (explore.waveform) found.push(waveform(numbers(explore.waveform), explore.seconds));
  const film = playback(thing);
  if (film?.localName === "video") found.push(film);
  if (picture && !explore.points) {
    found.push(el("img", { src: `data:image/png;base64,${picture}`, alt: inWords(thing.preview), class: "picture" }));
  }
  if (film?.localName === "audio") found.push(film);
  if (explore.electrodes) found.push(head(explore.electrodes, numbers(explore.places)));
  return [el("figure", { "aria-label": `${thing.name}, ${modality.replaceAll("_", " ")}` }, found)];
}

// The picture in words: what the sensor says of the file.
function inWords({ modality, facts }) {
  const said = Object.entries(facts).filter(([label]) => label !== "unit").slice(0, 4);
  return `${modality.replaceAll("_", " ")}: ${said.map(([label, text]) => `${label} ${text}`).join(", ")}`;
}

// A player for files that this browser knows; it goes away where the browser cannot play one after all.
function playback(thing) {
  const kind = thing.preview.explore.waveform ? "audio" : /^video\//.test(thing.file.type) ? "video" : "";
  if (!kind) return null;
  thing.address ??= URL.createObjectURL(thing.file);
  const player = el(kind, { src: thing.address, controls: true, preload: "metadata", "aria-label": `Play ${thing.name}` });
  player.addEventListener("error", () => player.replaceWith(el("p", { class: "note" }, "This browser cannot play this file itself.")));
  return player;
}

const SVG = "http://www.w3.org/2000/svg";

function drawing(box, label, parts) {
  const made = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: box, role: "img", "aria-label": label })) made.setAttribute(key, value);
  for (const [name, attributes, text] of parts) {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text) one.textContent = text;
    made.append(one);
  }
  return made;
}

function waveform(pairs, seconds) {
  const count = pairs.length / 2;
  const most = Math.max(1e-9, pairs.reduce((top, value) => Math.max(top, Math.abs(value)), 0));
  let path = "";
  for (let i = 0; i < count; i++) {
    const [low, high] = [pairs[2 * i], pairs[2 * i + 1]].map((value) => 50 - (48 * value) / most);
    path += `M${((800 * (i + 0.5)) / count).toFixed(1)} ${(low + 0.5).toFixed(1)}V${(high - 0.5).toFixed(1)}`;
  }
  const label = `waveform, ${seconds.toFixed(2)} s, largest value ${most.toFixed(3)}`;
  const made = drawing("0 0 800 100", label, [["path", { d: path, class: "wave" }]]);
  made.setAttribute("preserveAspectRatio", "none");
  made.classList.add("waveform");
  return made;
}

// The head from above with its nose up, and each electrode where it sits.
function head(names, places) {
  const parts = [
    ["path", { d: "M-10 -79L0 -93L10 -79", class: "outline" }],
    ["circle", { r: 80, class: "outline" }],
  ];
  const shown = names.length <= 40;
  names.forEach((name, i) => {
    const [x, y] = [80 * places[2 * i], -80 * places[2 * i + 1]];
    parts.push(["circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2.5, class: "electrode" }]);
    if (shown) parts.push(["text", { x: x.toFixed(1), y: (y - 5).toFixed(1) }, name]);
  });
  const made = drawing("-104 -100 208 204", `electrodes: ${names.join(", ")}`, parts);
  made.classList.add("electrodes");
  return made;
}
