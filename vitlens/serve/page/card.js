// A thing's card: what it is, how it looks and sounds, what was understood, and what may be said about it.

import { el } from "./dom.js";
import { about, load, remove, things } from "./things.js";
import { shown } from "./viewers.js";

export function cardOf(thing) {
  const card = el("li", { class: "card", tabIndex: -1 });
  drawCard(card, thing);
  return card;
}

// What changed is drawn anew; what a person is in the middle of (a field, a turning cloud) stays.
export function drawCard(card, thing) {
  const number = things.indexOf(thing) + 1;
  const drawn = `${thing.run} ${thing.state} ${thing.repainted}`;
  if (card.drawn === drawn) {
    card.querySelector(".number").textContent = number;
    return;
  }
  const held = card.contains(document.activeElement) ? document.activeElement.id : "";
  card.drawn = drawn;
  card.setAttribute("aria-busy", String(["waiting", "seen"].includes(thing.state)));
  card.replaceChildren(heading(thing, number), ...body(thing));
  if (held) document.getElementById(held)?.focus();
}

function heading(thing, number) {
  return el(
    "div",
    { class: "head" },
    el("h3", {}, el("span", { class: "number" }, number), " ", thing.name),
    el("button", { type: "button", class: "quiet", "aria-label": `Remove ${thing.name}`, title: "Remove", onclick: () => remove(thing) }, "×"),
  );
}

function body(thing) {
  const parts = [];
  if (thing.preview) parts.push(...shown(thing));
  else if (thing.state === "waiting") parts.push(el("p", { class: "note working" }, "Looking at it ..."));
  if (thing.problem) parts.push(wrong(thing));
  for (const remark of thing.remarks ?? []) parts.push(el("p", { class: "warning" }, remark));
  parts.push(understood(thing));
  if (thing.preview) parts.push(...facts(thing.preview, thing.name));
  return parts;
}

function wrong(thing) {
  const again = thing.problem.again && el("button", { type: "button", onclick: () => load(thing) }, "Try again");
  return el("div", { class: "wrong", role: "alert" }, el("p", {}, thing.problem.message), again);
}

function understood(thing) {
  if (thing.text !== undefined) return el("p", { class: "kind" }, thing.state === "seen" ? "text, embedding ..." : "text");
  const id = `kind-${thing.id}`;
  const chosen = thing.modality || thing.found || "";
  const names = Object.keys(about.modalities).filter((name) => about.modalities[name].kind !== "text");
  const choice = el(
    "select",
    {
      id,
      onchange: (event) => {
        Object.assign(thing, { modality: event.target.value, options: {} });
        load(thing);
      },
    },
    chosen ? null : el("option", { value: "" }, "choose ..."),
    names.map((name) => el("option", { value: name, selected: name === chosen }, name.replaceAll("_", " "))),
  );
  return el("div", { class: "kind" }, el("label", { for: id }, "read as"), choice, chosen ? options(thing, chosen) : null);
}

function options(thing, modality) {
  const names = about.modalities[modality]?.read_options ?? [];
  if (!names.length) return null;
  const fields = names.map((name) => {
    const id = `option-${thing.id}-${name}`;
    const given = thing.options[name];
    const value = given === undefined ? "" : typeof given === "string" ? given : JSON.stringify(given);
    return el("div", {}, el("label", { for: id }, name.replaceAll("_", " ")), el("input", { id, name, value, autocomplete: "off" }));
  });
  const form = el(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        const said = [...new FormData(form)].filter(([, text]) => text.trim());
        Object.assign(thing, { modality, options: Object.fromEntries(said) });
        load(thing);
      },
    },
    el("div", { class: "fields" }, fields),
    el("button", {}, "Read again"),
  );
  const said = Object.entries(thing.options).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  const summary = said.length ? `Read with ${said.join(", ")}` : "What the file does not say";
  return el("details", { open: thing.state === "failed" }, el("summary", {}, summary), form);
}

function facts(preview, name) {
  const rows = (pairs) => el("dl", {}, pairs.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text))));
  const { unit, ...told } = preview.facts;
  const steps = preview.steps.map((step) => el("li", {}, step));
  const rest = [["read as", unit], ["it gets", preview.gets]].filter(([, text]) => text);
  return [
    rows(Object.entries(told).filter(([, text]) => text !== name)),
    el(
      "details",
      {},
      el("summary", {}, "What the model gets"),
      rest.length ? rows(rest) : null,
      steps.length ? el("ol", { class: "steps" }, steps) : null,
    ),
  ];
}
