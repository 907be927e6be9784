// Ask the language model that the service has, about one of the things that it sees.

import { $, announce, el } from "./dom.js";
import { download } from "./save.js";
import { ask } from "./service.js";
import { called, onChange, request, things } from "./things.js";

const asked = [];

// streams: the sensors that the language model sees.
export function startChat(streams) {
  if (!streams.length) return;
  const [form, choice] = [$("#chat-form"), $("#chat-by")];
  onChange(() => {
    const seen = things.filter((thing) => thing.file && streams.includes(thing.found));
    $("#chat").hidden = !seen.length;
    const chosen = choice.value;
    choice.replaceChildren(...seen.map((thing) => el("option", { value: String(thing.id) }, `${things.indexOf(thing) + 1} ${called(thing)}`)));
    if (seen.some((thing) => String(thing.id) === chosen)) choice.value = chosen;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const thing = things.find((one) => String(one.id) === choice.value);
    const question = $("#question").value.trim();
    const button = $("button.main", form);
    if (!thing || !question) return;
    button.disabled = true;
    $("#chat-wrong").textContent = "";
    try {
      const reply = await ask("/v1/chat/completions", request(thing, { question }, thing.found));
      const answer = reply.choices[0].message.content;
      asked.push({ about: called(thing), question, answer });
      $("#answers").append(el("dt", {}, `${question} (${called(thing)})`), el("dd", {}, answer));
      announce(answer);
    } catch (problem) {
      $("#chat-wrong").textContent = problem.message;
    }
    button.disabled = false;
    $("[data-save]", form).hidden = !asked.length;
  });
  $("[data-save]", form).addEventListener("click", () => download("answers.json", JSON.stringify(asked, null, 1)));
}
