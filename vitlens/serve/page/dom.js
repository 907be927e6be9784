// Elements without HTML in strings: el("p", { class: "note" }, "text", child).

export const $ = (selector, within = document) => within.querySelector(selector);

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list" && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

// Tell those who do not see the page what has changed.
export function announce(sentence) {
  $("#said").textContent = sentence;
}

// Bytes behind base64, and the arrays that the service sends as {dtype, shape, data}.
export const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export function numbers(array) {
  const kinds = { float32: Float32Array, float64: Float64Array, uint8: Uint8Array };
  return new kinds[array.dtype](bytes(array.data).buffer);
}

export const dark = matchMedia("(prefers-color-scheme: dark)");
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
