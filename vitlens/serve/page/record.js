// Record from the microphone, as a wav file, and take a picture with the camera, as a png file.

import { $, el } from "./dom.js";

const REFUSED = "This browser lets the page have no microphone or camera: allow it, or open the page at localhost or over https.";
let stop = () => {};

async function opened(wanted) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error(REFUSED);
  try {
    return await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    const nothing = error.name === "NotFoundError" || error.name === "OverconstrainedError";
    throw new Error(nothing ? "There is no such device on this machine." : REFUSED);
  }
}

function panel(...parts) {
  $("#recorder").replaceChildren(...parts);
  $("#recorder").hidden = !parts.length;
  parts.at(-1)?.querySelector?.("button")?.focus();
}

function over(stream) {
  for (const track of stream.getTracks()) track.stop();
  stop = () => {};
  panel();
}

export async function recordSound(taken) {
  stop();
  const stream = await opened({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.addEventListener("stop", async () => {
    over(stream);
    if (!pieces.length || recorder.dropped) return;
    const context = new AudioContext();
    const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
    context.close();
    taken(new File([wav(sound.getChannelData(0), sound.sampleRate)], stamped("sound", "wav"), { type: "audio/wav" }));
  });
  stop = () => {
    recorder.dropped = true;
    recorder.stop();
  };
  recorder.start();
  const finish = el("button", { type: "button", class: "main", onclick: () => recorder.stop() }, "Stop and add");
  panel(el("p", { role: "status" }, "Recording ..."), el("div", { class: "row" }, finish, el("button", { type: "button", onclick: () => stop() }, "Discard")));
}

export async function takePicture(taken) {
  stop();
  const stream = await opened({ video: true });
  stop = () => over(stream);
  const video = el("video", { autoplay: true, muted: true, playsInline: true, "aria-label": "What the camera sees" });
  video.srcObject = stream;
  const shoot = () => {
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    over(stream);
    canvas.toBlob((blob) => taken(new File([blob], stamped("picture", "png"), { type: "image/png" })));
  };
  const button = el("button", { type: "button", class: "main", disabled: true, onclick: shoot }, "Take it");
  video.addEventListener("loadeddata", () => (button.disabled = false));
  panel(video, el("div", { class: "row" }, button, el("button", { type: "button", onclick: () => stop() }, "Close")));
}

function stamped(name, ending) {
  return `${name} ${new Date().toTimeString().slice(0, 8).replaceAll(":", "-")}.${ending}`;
}

// Samples in -1..1 as a wav file of 16 bits.
function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const words = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  words(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  words(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  words(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return view.buffer;
}
