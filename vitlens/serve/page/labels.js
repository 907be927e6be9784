// Classify everything by one's own labels.

import { $, announce, el } from "./dom.js";
import { csv, download } from "./save.js";
import { ask } from "./service.js";
import { called, onReady, part, ready } from "./things.js";

const MOST = 6;
let shown = null;
let asked = 0;

export function startLabels(linked) {
  const form = $("#labels-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    linked();
    classify();
  });
  for (const button of form.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(button.dataset.save));
  onReady(() => {
    $("#classify").hidden = !ready().length;
    if (shown) classify();
  });
}

export const labels = () => $("#labels").value.split(/[,\n]/).map((label) => label.trim()).filter(Boolean);

export function setLabels(listed) {
  $("#labels").value = listed.join(", ");
  shown = listed.length ? { waiting: true } : null;
  if (!listed.length) $("#classes").replaceChildren();
  else classify();
}

async function classify() {
  const run = ++asked;
  const found = ready();
  shown ??= { waiting: true };
  if (!found.length) return $("#classes").replaceChildren();
  try {
    const listed = labels();
    const reply = await ask("/v1/classify", { input: found.map((thing) => part(thing)), labels: listed, top: Math.max(1, listed.length) });
    if (run !== asked) return;
    shown = { labels: listed, data: reply.data.map((one, i) => ({ name: called(found[i]), modality: found[i].found, labels: one.labels })) };
    $("#labels-wrong").textContent = (reply.remarks ?? []).map((one) => one.text).join(" ");
    $("#classes").replaceChildren(...shown.data.map(drawn));
    announce(shown.data.map((one) => `${one.name}: ${one.labels[0].label}`).join("; "));
  } catch (problem) {
    if (run === asked) $("#labels-wrong").textContent = problem.message;
  }
  for (const button of document.querySelectorAll("#labels-form [data-save]")) button.hidden = !shown?.data;
}

function drawn(one, i) {
  const rows = one.labels.slice(0, MOST).map(({ label, probability, cosine }) => {
    const bar = el("span", { class: "bar" });
    bar.style.width = `${(100 * probability).toFixed(1)}%`;
    const percent = `${(100 * probability).toFixed(1)} %`;
    return el("tr", {}, el("th", { scope: "row" }, label), el("td", { class: "bars" }, bar), el("td", { class: "number" }, percent), el("td", { class: "number pale" }, cosine.toFixed(3)));
  });
  const more = one.labels.length - MOST;
  return el(
    "div",
    { class: "class" },
    el(
      "table",
      {},
      el("caption", {}, el("span", { class: "number" }, i + 1), " ", one.name),
      el("thead", { class: "hidden" }, el("tr", {}, ["label", "", "probability", "cosine"].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
      el("tbody", {}, rows),
    ),
    more > 0 ? el("p", { class: "note" }, `and ${more} more, in the files to download`) : null,
  );
}

function save(kind) {
  if (!shown?.data) return;
  if (kind === "json") return download("classes.json", JSON.stringify(shown, null, 1));
  const rows = shown.data.flatMap((one) => one.labels.map((best) => [one.name, one.modality, best.label, best.probability, best.cosine]));
  download("classes.csv", csv([["thing", "modality", "label", "probability", "cosine"], ...rows]));
}
