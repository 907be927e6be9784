// Compare everything with everything, and mix: a heatmap with its numbers, and a slider for each thing.

import { $, el } from "./dom.js";
import { csv, download, npz } from "./save.js";
import { ask } from "./service.js";
import { called, mixture, onReady, part, ready } from "./things.js";

let shown = null;
let asked = 0;

export function startCompare() {
  onReady(refresh);
  for (const button of document.querySelectorAll("#save [data-save]")) {
    button.addEventListener("click", () => save(button.dataset.save));
  }
}

let timer;
function refresh() {
  const found = ready();
  $("#compare").hidden = found.length < 2;
  drawSliders(found);
  clearTimeout(timer);
  if (found.length > 1) timer = setTimeout(compare, 120, found);
  else shown = null;
}

async function compare(found) {
  const run = ++asked;
  const mixed = mixture();
  const input = [...found.map((thing) => part(thing)), ...(mixed ? [mixed] : [])];
  try {
    const { cosines } = await ask("/v1/similarity", { input });
    if (run !== asked) return;
    shown = { names: [...found.map(called), ...(mixed ? ["the mixture"] : [])], cosines, mixed, found };
    $("#compare-wrong").textContent = "";
    $("#heatmap").replaceChildren(heatmap(shown.names, cosines));
  } catch (problem) {
    if (run === asked) $("#compare-wrong").textContent = problem.message;
  }
}

function heatmap(names, cosines) {
  const others = cosines.flatMap((row, i) => row.filter((_, j) => i !== j));
  const [low, high] = [Math.min(...others), Math.max(...others)];
  const head = el("tr", {}, el("td"), names.map((name, i) => el("th", { scope: "col", title: name }, mark(names, i, name, true))));
  const rows = cosines.map((row, i) =>
    el("tr", {}, el("th", { scope: "row", title: names[i] }, mark(names, i, names[i])), row.map((value, j) => cell(value, i === j, low, high))),
  );
  const table = el("table", { class: "heat" }, el("caption", { class: "hidden" }, "Cosines of all things with each other"), el("thead", {}, head), el("tbody", {}, rows));
  return el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Cosines" }, table);
}

// Columns are called by the numbers of the cards; the name follows for those who listen.
function mark(names, i, name, short = false) {
  const number = name === "the mixture" && i === names.length - 1 ? "mix" : String(i + 1);
  return short ? [number, el("span", { class: "hidden" }, ` ${name}`)] : [el("span", { class: "number" }, number), " ", name];
}

function cell(value, same, low, high) {
  const made = el("td", {}, value.toFixed(2));
  if (same) made.className = "same";
  else {
    const share = high > low ? (value - low) / (high - low) : 1;
    made.style.setProperty("--share", share.toFixed(3));
    made.className = "other";
  }
  return made;
}

function drawSliders(found) {
  const box = $("#sliders");
  const there = new Map([...box.children].map((row) => [row.thing, row]));
  for (const [thing, row] of there) if (!found.includes(thing)) row.remove();
  found.forEach((thing, i) => {
    const row = there.get(thing) ?? slider(thing);
    row.querySelector(".number").textContent = i + 1;
    if (box.children[i] !== row) box.insertBefore(row, box.children[i] ?? null);
  });
}

function slider(thing) {
  const id = `weight-${thing.id}`;
  const value = el("output", { for: id }, thing.weight.toFixed(1));
  const range = el("input", { id, type: "range", min: "-1", max: "1", step: "0.1", value: String(thing.weight) });
  range.addEventListener("input", () => {
    thing.weight = Number(range.value);
    value.textContent = thing.weight.toFixed(1);
    for (const watcher of weighed) watcher();
    clearTimeout(timer);
    timer = setTimeout(() => compare(ready()), 120);
  });
  const row = el("div", { class: "slider" }, el("label", { for: id }, el("span", { class: "number" }), " ", called(thing)), range, value);
  row.thing = thing;
  return row;
}

const weighed = [];
export const onWeights = (watcher) => weighed.push(watcher);

async function save(kind) {
  if (!shown) return;
  const { names, cosines, mixed, found } = shown;
  const weights = found.map((thing) => thing.weight);
  if (kind === "json") {
    const listed = found.map((thing) => ({ name: thing.name, modality: thing.found, options: thing.options, weight: thing.weight }));
    download("cosines.json", JSON.stringify({ things: listed, names, cosines }, null, 1));
  } else if (kind === "csv") {
    download("cosines.csv", csv([["", ...names], ...cosines.map((row, i) => [names[i], ...row])]));
  } else {
    const kept = found.map((thing) => thing.embedding);
    if (mixed) kept.push((await ask("/v1/embeddings", { input: [mixed], encoding_format: "base64" })).data[0].embedding);
    download("embeddings.npz", npz(names, found.map((thing) => thing.found).concat(mixed ? ["mixture"] : []), kept, mixed ? [...weights, 1] : weights));
  }
}
