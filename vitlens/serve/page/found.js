// Ask what the service has loaded: an index, with pictures of what was found, and a scene, with its heat in 3-D.

import { $, announce, bytes, dark, el, numbers } from "./dom.js";
import { onWeights } from "./compare.js";
import { csv, download } from "./save.js";
import { ask, blobOf } from "./service.js";
import { called, mixture, onChange, part, ready } from "./things.js";
import { turning } from "./turning.js";

const HITS = 12;

export function startFound(has) {
  if (has.index) start("search", search);
  if (has.scene) start("scene", askScene);
}

// A form that asks with one thing, or with the mixture.
function start(name, run) {
  const [form, choice] = [$(`#${name}-form`), $(`#${name}-by`)];
  const offer = () => {
    const found = ready();
    $(`#${name}`).hidden = !found.length;
    const chosen = choice.value;
    const mixed = mixture() ? [el("option", { value: "mix" }, "the mixture")] : [];
    choice.replaceChildren(...mixed, ...found.map((thing, i) => el("option", { value: String(thing.id) }, `${i + 1} ${called(thing)}`)));
    if ([...choice.options].some((option) => option.value === chosen)) choice.value = chosen;
  };
  onChange(offer);
  onWeights(offer);
  let result = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const thing = ready().find((one) => String(one.id) === choice.value);
    $(`#${name}-wrong`).textContent = "";
    try {
      result = await run(thing ? part(thing) : mixture());
    } catch (problem) {
      $(`#${name}-wrong`).textContent = problem.message;
    }
    for (const button of form.querySelectorAll("[data-save]")) button.hidden = !result;
  });
  for (const button of form.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => {
      if (button.dataset.save === "json") download(`${name}.json`, JSON.stringify(result, null, 1));
      else download(`${name}.csv`, csv([["source", "modality", "score"], ...result.hits.map((hit) => [hit.source, hit.modality, hit.score])]));
    });
  }
}

async function search(item) {
  const [answer] = (await ask("/v1/search", { input: [item], k: HITS })).data;
  $("#search-said").textContent = answer.calibration ?? "";
  $("#hits").replaceChildren(...answer.hits.map(hitCard));
  announce(`${answer.hits.length} found, first ${answer.hits[0]?.source ?? "nothing"}`);
  return answer;
}

function hitCard(hit) {
  const name = String(hit.source).split(/[\\/]/).at(-1);
  const place = el("div", { class: "thumb" });
  if (hit.has_file) thumbnail(hit, name).then((made) => place.append(...made), (problem) => place.append(el("p", { class: "note" }, problem.message)));
  return el("li", {}, place, el("p", {}, name), el("p", { class: "note" }, `${hit.modality.replaceAll("_", " ")} · ${hit.score.toFixed(3)}`));
}

async function thumbnail(hit, name) {
  const file = await blobOf(`/v1/search/file?key=${encodeURIComponent(hit.key)}`);
  const form = new FormData();
  form.append(hit.modality, file, name);
  form.append("dark", String(dark.matches));
  for (const [option, value] of Object.entries(JSON.parse(hit.options || "{}"))) form.append(`${hit.modality}.${option}`, typeof value === "string" ? value : JSON.stringify(value));
  const { picture, explore } = await ask("/v1/preview", form);
  if (explore.points) return [turning(numbers(explore.points), numbers(explore.colours), `${name}: points to turn`)];
  return picture ? [el("img", { src: `data:image/png;base64,${picture}`, alt: `${hit.modality} ${name}` })] : [];
}

let scene = null;

async function askScene(item) {
  scene ??= await openScene();
  const answer = await ask("/v1/scene", { input: [item], heat: true });
  scene.canvas.colour(heated(scene.colours, new Float32Array(bytes(answer.heat).buffer)));
  $("#places").replaceChildren(...answer.places.map(placeCard));
  announce(`${answer.places.length} places`);
  const { heat, ...told } = answer;
  return told;
}

async function openScene() {
  const card = await ask("/v1/scene");
  const colours = bytes(card.colours);
  const points = upright(new Float32Array(bytes(card.points).buffer), card.up);
  const canvas = turning(points, colours, "the scene, warm where the answer is");
  $("#scene-view").replaceChildren(canvas);
  return { canvas, colours };
}

// Points turned so that `up` is z, moved around the origin and made to fit into -1..1.
function upright(points, up) {
  const length = Math.hypot(...up);
  const z = up.map((value) => value / length);
  const side = Math.abs(z[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const along = side.reduce((sum, value, i) => sum + value * z[i], 0);
  const rest = side.map((value, i) => value - along * z[i]);
  const x = rest.map((value) => value / Math.hypot(...rest));
  const y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]];
  const turned = new Float32Array(points.length);
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  for (let i = 0; i < points.length; i += 3) {
    [x, y, z].forEach((axis, k) => {
      const value = axis[0] * points[i] + axis[1] * points[i + 1] + axis[2] * points[i + 2];
      turned[i + k] = value;
      low[k] = Math.min(low[k], value);
      high[k] = Math.max(high[k], value);
    });
  }
  const size = Math.hypot(...high.map((value, k) => value - low[k])) / 2 || 1;
  for (let i = 0; i < turned.length; i++) turned[i] = (turned[i] - (low[i % 3] + high[i % 3]) / 2) / size;
  return turned;
}

// The scene in grey, and red the warmer the upper half of its heat is.
function heated(colours, heat) {
  const seen = heat.filter((value) => !Number.isNaN(value)).sort();
  const [middle, top] = [seen[Math.floor(seen.length / 2)] ?? 0, seen[seen.length - 1] ?? 1];
  const made = new Uint8Array(colours.length);
  heat.forEach((value, i) => {
    const warm = Number.isNaN(value) || top <= middle ? 0 : Math.max(0, (value - middle) / (top - middle)) ** 2;
    const grey = 0.3 * colours[3 * i] + 0.59 * colours[3 * i + 1] + 0.11 * colours[3 * i + 2];
    [235, 80, 20].forEach((ink, k) => (made[3 * i + k] = (1 - warm) * (0.8 * grey + 30) + warm * ink));
  });
  return made;
}

function placeCard(place, i) {
  const point = place.point.map((value) => value.toFixed(2)).join(", ");
  const frame = place.frames[0]?.frame;
  const thumb = el("div", { class: "thumb" });
  if (frame) {
    blobOf(`/v1/scene/frame?name=${encodeURIComponent(frame)}`).then(
      (file) => thumb.append(el("img", { src: URL.createObjectURL(file), alt: `frame ${frame}` })),
      (problem) => thumb.append(el("p", { class: "note" }, problem.message)),
    );
  }
  return el("li", {}, thumb, el("p", {}, `${i + 1}: ${point} m`), frame ? el("p", { class: "note" }, String(frame)) : null);
}
