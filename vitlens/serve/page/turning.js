// Points that turn, on an ordinary 2-D canvas: drag, arrow keys, + and -; near points cover far ones.

import { calm, el } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 360;

// points: Float32Array of x, y, z (z up, within -1..1); colours: Uint8Array of r, g, b.
export function turning(points, colours, label) {
  const canvas = el("canvas", { width: WIDTH, height: HEIGHT, tabIndex: 0, role: "img", "aria-label": `${label}; arrow keys turn it` });
  const view = { across: 0.6, up: 0.35, near: 1 };
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(WIDTH, HEIGHT);
  const depths = new Float32Array(WIDTH * HEIGHT);
  let asked = false;
  let alone = !calm.matches;

  function draw() {
    asked = false;
    project(points, colours, view, pixels, depths);
    context.putImageData(pixels, 0, 0);
  }
  function soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  }
  function turn(across, up, near = 1) {
    alone = false;
    view.across += across;
    view.up = Math.max(-1.57, Math.min(1.57, view.up + up));
    view.near = Math.max(0.3, Math.min(8, view.near * near));
    soon();
  }
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn(-event.movementX / 120, event.movementY / 120);
  });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] };
    const nearer = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 };
    if (!moves[event.key] && !nearer[event.key]) return;
    event.preventDefault();
    turn(...(moves[event.key] ?? [0, 0]), nearer[event.key]);
  });
  // Once around by itself while it can be seen, where nobody asked for less motion.
  let first;
  function around(now) {
    first ??= now;
    if (!alone || !canvas.isConnected || now - first > 9000) return;
    view.across = 0.6 + (2 * Math.PI * (now - first)) / 9000;
    draw();
    requestAnimationFrame(around);
  }
  draw();
  if (alone) {
    new IntersectionObserver((seen, watching) => {
      if (!seen[0].isIntersecting) return;
      watching.disconnect();
      requestAnimationFrame(around);
    }).observe(canvas);
  }
  canvas.colour = (fresh) => {
    colours = fresh;
    soon();
  };
  return canvas;
}

function project(points, colours, { across, up, near }, pixels, depths) {
  const [ca, sa, cu, su] = [Math.cos(across), Math.sin(across), Math.cos(up), Math.sin(up)];
  const data = new Uint32Array(pixels.data.buffer);
  data.fill(0);
  depths.fill(-Infinity);
  const count = points.length / 3;
  const size = Math.max(2, Math.min(9, Math.round((near * 190) / Math.sqrt(count))));
  for (let i = 0; i < count; i++) {
    const [x, y, z] = [points[3 * i], points[3 * i + 1], points[3 * i + 2]];
    const right = ca * x + sa * y;
    const away = ca * y - sa * x;
    const towards = su * z - cu * away;
    const scale = (0.82 * near * HEIGHT) / 2 / (1 - 0.18 * towards);
    const column = Math.round(WIDTH / 2 + scale * 1.25 * right - size / 2);
    const row = Math.round(HEIGHT / 2 - scale * 1.25 * (cu * z + su * away) - size / 2);
    const ink = (255 << 24) | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
    for (let v = Math.max(0, row); v < Math.min(HEIGHT, row + size); v++) {
      for (let u = Math.max(0, column); u < Math.min(WIDTH, column + size); u++) {
        const at = v * WIDTH + u;
        if (towards > depths[at]) {
          depths[at] = towards;
          data[at] = ink;
        }
      }
    }
  }
}
