// A cloud of voxels on a canvas: squares with a depth buffer, without WebGL, so that it turns in any browser.
(() => {
  "use strict";
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const cloud = read("cloud");
  const queries = read("queries").map((query) => ({ ...query, heat: bytes(query.heat) }));
  const scaled = new Uint16Array(bytes(cloud.points).buffer);
  const points = Float32Array.from(scaled, (value, at) => {
    const axis = at % 3;
    return cloud.low[axis] + (value / 65535) * (cloud.high[axis] - cloud.low[axis]);
  });
  const colours = bytes(cloud.colours);
  const normals = new Int8Array(bytes(cloud.normals).buffer);
  const ramp = bytes(cloud.ramp);
  const canvas = document.getElementById("stage");
  const context = canvas.getContext("2d");
  const edges = [];
  for (let a = 0; a < 8; a++) for (const bit of [1, 2, 4]) if (!(a & bit)) edges.push([a, a | bit]);
  let chosen = 0;
  let warm = true;
  let packed = new Uint32Array(cloud.count);
  let view = start();
  let waiting = false;

  function start() {
    const radians = Math.PI / 180;
    return { azimuth: queries[chosen].azimuth * radians, height: queries[chosen].height * radians, zoom: 1 };
  }

  function paint() {
    const heat = queries[chosen].heat;
    for (let i = 0; i < cloud.count; i++) {
      let [r, g, b] = [colours[3 * i], colours[3 * i + 1], colours[3 * i + 2]];
      if (warm) {
        const mean = (r + g + b) / 3;
        const share = Math.sqrt(Math.max(0, (heat[i] / 255 - 0.35) / 0.65));
        const at = 3 * Math.round(255 * share * share);
        [r, g, b] = [r, g, b].map((value, channel) => {
          const grey = 64 + 0.6 * mean + 0.15 * (value - mean);
          return grey * (1 - share) + ramp[at + channel] * share;
        });
      }
      packed[i] = (255 << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r);
    }
  }

  function camera(width, height) {
    const [ca, sa, ch, sh] = [Math.cos(view.azimuth), Math.sin(view.azimuth), Math.cos(view.height), Math.sin(view.height)];
    const away = [ch * ca, sh, ch * sa];
    const right = [sa, 0, -ca];
    const down = [sh * ca, -ch, sh * sa];
    const focal = Math.min(width, height) / 2 / Math.tan((cloud.field * Math.PI) / 360);
    return { away, right, down, focal, distance: cloud.distance / view.zoom };
  }

  function project(eye, width, height, x, y, z) {
    const depth = eye.distance - (x * eye.away[0] + y * eye.away[1] + z * eye.away[2]);
    const scale = eye.focal / depth;
    return [
      width / 2 + scale * (x * eye.right[0] + y * eye.right[1] + z * eye.right[2]),
      height / 2 + scale * (x * eye.down[0] + y * eye.down[1] + z * eye.down[2]),
      depth,
    ];
  }

  function draw() {
    waiting = false;
    const sharp = Math.min(window.devicePixelRatio || 1, 1.5);
    const width = Math.max(1, Math.round(canvas.clientWidth * sharp));
    const height = Math.max(1, Math.round(canvas.clientHeight * sharp));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const eye = camera(width, height);
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const nearest = new Float32Array(width * height).fill(Infinity);
    for (let i = 0; i < cloud.count; i++) {
      const [x, y, z] = [points[3 * i], points[3 * i + 1], points[3 * i + 2]];
      const [across, along, depth] = project(eye, width, height, x, y, z);
      if (depth < 0.05) continue;
      const toward =
        normals[3 * i] * (eye.away[0] * eye.distance - x) +
        normals[3 * i + 1] * (eye.away[1] * eye.distance - y) +
        normals[3 * i + 2] * (eye.away[2] * eye.distance - z);
      if (toward < 0) continue;
      const half = Math.max(0.5, (0.62 * cloud.voxel * eye.focal) / depth);
      const left = Math.max(0, Math.round(across - half));
      const stop = Math.min(width, Math.round(across + half) + 1);
      const bottom = Math.min(height, Math.round(along + half) + 1);
      for (let row = Math.max(0, Math.round(along - half)); row < bottom; row++) {
        for (let at = row * width + left; at < row * width + stop; at++) {
          if (depth < nearest[at]) {
            nearest[at] = depth;
            pixels[at] = packed[i];
          }
        }
      }
    }
    context.putImageData(image, 0, 0);
    queries[chosen].boxes.forEach((corners, number) => {
      const flat = corners.map((corner) => project(eye, width, height, ...corner));
      if (flat.some((corner) => corner[2] < 0.05)) return;
      context.strokeStyle = number ? "#18c5d9aa" : "#18c5d9";
      context.lineWidth = (number ? 1 : 2.5) * sharp;
      context.beginPath();
      for (const [a, b] of edges) {
        context.moveTo(flat[a][0], flat[a][1]);
        context.lineTo(flat[b][0], flat[b][1]);
      }
      context.stroke();
    });
  }

  function ask() {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }

  function turn(across, along) {
    view.azimuth += across;
    view.height = Math.min(1.5, Math.max(-0.4, view.height + along));
    ask();
  }

  function closer(factor) {
    view.zoom = Math.min(8, Math.max(0.4, view.zoom * factor));
    ask();
  }

  const held = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const [x, y] = held.get(event.pointerId);
    const before = apart();
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 1) turn((event.clientX - x) * 0.008, (event.clientY - y) * 0.008);
    else if (before) closer(apart() / before);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => held.delete(event.pointerId));

  function apart() {
    const [a, b] = [...held.values()];
    return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
  }

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      closer(Math.exp(-event.deltaY * 0.0015));
    },
    { passive: false },
  );
  canvas.addEventListener("dblclick", () => {
    view = start();
    ask();
  });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => turn(-0.1, 0),
      ArrowRight: () => turn(0.1, 0),
      ArrowUp: () => turn(0, 0.1),
      ArrowDown: () => turn(0, -0.1),
      "+": () => closer(1.15),
      "=": () => closer(1.15),
      "-": () => closer(1 / 1.15),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  function press(buttons, pressed) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
  }

  const asked = document.querySelectorAll("[data-query]");
  for (const button of asked) {
    button.addEventListener("click", () => {
      chosen = Number(button.dataset.query);
      press(asked, button);
      for (const part of document.querySelectorAll("[data-answer]")) part.hidden = Number(part.dataset.answer) !== chosen;
      view = start();
      paint();
      ask();
    });
  }
  const modes = document.querySelectorAll("[data-colours]");
  for (const button of modes) {
    button.addEventListener("click", () => {
      warm = button.dataset.colours === "heat";
      press(modes, button);
      paint();
      ask();
    });
  }
  const stops = [0, 64, 128, 192, 255].map((at) => `rgb(${ramp[3 * at]} ${ramp[3 * at + 1]} ${ramp[3 * at + 2]})`);
  for (const bar of document.querySelectorAll(".ramp i")) bar.style.background = `linear-gradient(90deg, #9aa3ab, ${stops.join(", ")})`;
  new ResizeObserver(ask).observe(canvas);
  paint();
  ask();
})();
