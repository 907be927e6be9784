// The page of a vitlens service: it asks what there is, takes what is dropped, typed or recorded, and shows it.

import { $, announce, el } from "./dom.js";
import { cardOf, drawCard } from "./card.js";
import { startChat } from "./chat.js";
import { onWeights, startCompare } from "./compare.js";
import { filesOf, grouped } from "./dropped.js";
import { startFound } from "./found.js";
import { startLabels } from "./labels.js";
import { follow, remember, unlinked } from "./link.js";
import { recordSound, takePicture } from "./record.js";
import { ask, blobOf, onTokenWanted, useToken } from "./service.js";
import { about, add, load, onChange, remove, things } from "./things.js";

const cards = new Map();
let started = false;
let told = false;

onChange(() => {
  for (const [thing, card] of cards) {
    if (things.includes(thing)) continue;
    const next = card.nextElementSibling ?? card.previousElementSibling;
    const held = card.contains(document.activeElement);
    card.remove();
    cards.delete(thing);
    if (held) (next ?? $("#things-title")).focus();
  }
  for (const thing of things) {
    if (cards.has(thing)) drawCard(cards.get(thing), thing);
    else {
      cards.set(thing, cardOf(thing));
      $("#things").append(cards.get(thing));
    }
  }
  $("#nothing").hidden = things.length > 0;
  $("#clear").hidden = things.length < 2;
  $("#linked").textContent = "";
  if (started) remember();
});

function addFiles(files) {
  $("#add-wrong").textContent = "";
  for (const given of grouped(files)) add(given);
}

async function addExample(number, weight = 0) {
  const example = about.examples[number];
  if (!example) {
    $("#add-wrong").textContent = `This service has no example ${number}.`;
    return;
  }
  if (example.text !== undefined) {
    void add({ text: example.text, example: number, weight });
    return;
  }
  try {
    const files = await Promise.all(
      example.files.map(async (name, part) => new File([await blobOf(`/v1/examples/${number}/${part}`)], name)),
    );
    const { modality, options } = example;
    void add({ file: files[0], beside: files.slice(1), modality, options, example: number, weight });
  } catch (problem) {
    $("#add-wrong").textContent = problem.message;
  }
}

function offerExamples() {
  $("#examples").hidden = !about.examples.length;
  const lines = new Map();
  about.examples.forEach((example, number) => {
    const name = example.text ?? example.files[0];
    const kind = example.modality.replaceAll("_", " ");
    const button = el("button", { type: "button", "aria-label": `Add ${kind} ${name}`, onclick: () => addExample(number) }, name);
    lines.set(kind, [...(lines.get(kind) ?? []), { number, button }]);
  });
  const rows = [...lines].map(([kind, own]) => el("li", {}, el("b", {}, kind), el("div", { class: "row" }, own.map((one) => one.button))));
  $("#examples .strip").replaceChildren(...rows);
  $("#one-of-each").onclick = async () => {
    for (const [first] of lines.values()) await addExample(first.number);
  };
}

function tellSensors() {
  const rows = Object.entries(about.modalities).map(([name, sensor]) =>
    el("tr", {}, el("th", { scope: "row" }, name.replaceAll("_", " ")), el("td", {}, sensor.accepts)),
  );
  $("#sensors table").replaceChildren(el("tbody", {}, rows));
}

async function start() {
  try {
    const [models, page] = await Promise.all([ask("/v1/models"), ask("/v1/page")]);
    const model = models.data[0];
    Object.assign(about, { modalities: model.modalities, limits: page.limits, examples: page.examples });
    const sensors = Object.keys(model.modalities).map((name) => name.replaceAll("_", " "));
    $("#model").replaceChildren("This is ", el("b", {}, model.id), `, which understands ${sensors.join(", ")} in one space.`);
    $("#token").hidden = true;
    offerExamples();
    tellSensors();
    if (!told) startFound(page);
    if (!told) startChat(page.chat);
    told = true;
    started = true;
    await follow(addExample);
  } catch (problem) {
    const again = el("button", { type: "button", onclick: start }, "Try again");
    $("#model").replaceChildren(problem.message, " ", again);
  }
}

function wire() {
  $("#choose").addEventListener("click", () => $("#files").click());
  $("#files").addEventListener("change", (event) => {
    addFiles([...event.target.files]);
    event.target.value = "";
  });
  $("#words").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("#text").value.trim();
    if (text) add({ text });
    $("#text").value = "";
  });
  $("#clear").addEventListener("click", () => {
    for (const thing of [...things]) remove(thing);
    announce("Everything was removed");
  });
  for (const [button, record] of [["#sound", recordSound], ["#camera", takePicture]]) {
    $(button).addEventListener("click", () => {
      $("#add-wrong").textContent = "";
      record((file) => addFiles([file])).catch((error) => ($("#add-wrong").textContent = error.message));
    });
  }
  $("#link").addEventListener("click", copyLink);
  wireDrops();
  addEventListener("popstate", () => follow(addExample));
  onTokenWanted((wrong) => {
    $("#token").hidden = false;
    $("#token-wrong").textContent = wrong;
  });
  $("#token").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken($("#token-text").value.trim());
    $("#token-wrong").textContent = "";
    if (!started) start();
    else for (const thing of things) if (thing.problem?.again) load(thing);
  });
}

function wireDrops() {
  let within = 0;
  const over = (change) => {
    within = Math.max(0, change);
    document.body.classList.toggle("over", within > 0);
  };
  addEventListener("dragenter", () => over(within + 1));
  addEventListener("dragleave", () => over(within - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    over(0);
    const text = event.dataTransfer.getData("text/plain").trim();
    const files = await filesOf(event.dataTransfer);
    if (files.length) addFiles(files);
    else if (text) add({ text });
  });
  addEventListener("paste", async (event) => {
    const typing = event.target.closest?.("input, textarea");
    const text = event.clipboardData.getData("text/plain").trim();
    if (event.clipboardData.files.length) addFiles([...event.clipboardData.files]);
    else if (text && !typing) add({ text });
    else return;
    event.preventDefault();
  });
}

async function copyLink() {
  const missing = unlinked();
  const note = missing ? ` ${missing === 1 ? "One file of yours is" : `${missing} files of yours are`} not in it: files stay with you.` : "";
  try {
    await navigator.clipboard.writeText(location.href);
    $("#linked").textContent = `Copied: words, examples and labels.${note}`;
  } catch {
    $("#linked").textContent = `${location.href}${note}`;
  }
}

startCompare();
onWeights(() => remember(true));
startLabels(() => remember());
wire();
start();
