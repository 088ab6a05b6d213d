// The page of `agegender demo`: sends a photo to /predict and draws boxes and bars.
//
// The server's coordinates are pixels of the upright photo. Photos are drawn upright too,
// so boxes are placed in shares of the image's width and height.

import { draw } from "./charts.js";
import { charts, nameOf } from "./predictions.js";
import { upright } from "./upright.js";

const byId = (id) => document.getElementById(id);
const main = document.querySelector("main");
const image = document.querySelector(".stage img");
const video = document.querySelector("#camera video");

// The models, the photo, the server's response as text and as an object, the index of the
// selected face, the current request, and the timer of the next attempt.
const shown = { models: [], photo: null, text: "", prediction: null, face: -1 };

// -- messages -------------------------------------------------------------------------

/** Shows a message; `again` is the action of its button, if any. */
function say(state, title, text = "", again = null) {
  main.dataset.state = state;
  const message = byId("message");
  message.hidden = !title;
  message.querySelector("h2").textContent = title;
  message.querySelector("p").textContent = text;
  byId("again").hidden = !again;
  byId("again").onclick = again;
}

const NO_FACE = [
  "No face was found",
  "Try a photo with a larger, well-lit, upright face that looks at the camera.",
];
const GONE = [
  "The server does not respond",
  "It may have been stopped. Start it again, then retry.",
];

// -- models ---------------------------------------------------------------------------

async function loadModels() {
  clearTimeout(shown.timer);
  let reply;
  try {
    reply = await fetch("models");
  } catch {
    return say("error", ...GONE, loadModels);
  }
  if (reply.status === 503) {
    say("waiting", "Loading the model…");
    shown.timer = setTimeout(loadModels, 1000);
    return;
  }
  if (!reply.ok) {
    return say("error", "No model is available", await errorOf(reply), loadModels);
  }
  const { models, default: chosen } = await reply.json();
  shown.models = models;
  byId("model").replaceChildren(
    ...models.map(({ name }) => new Option(name, name, name === chosen, name === chosen)),
  );
  byId("model-choice").hidden = models.length < 2;
  say("empty", "");
  describeModel();
  if (shown.photo) predict();
}

function model() {
  return shown.models.find(({ name }) => name === byId("model").value);
}

function describeModel() {
  const { name, licence, limits } = model();
  byId("licence").textContent = `${name}. ` +
    (licence ? `License: ${licence}` : "It has no license information.");
  byId("model-limits").textContent = limits ?? "";
  byId("model-limits").hidden = !limits;
}

// -- photo and predictions -------------------------------------------------------------

/** Shows and predicts a file. Its bytes are stored for other models. */
async function take(file, name = file.name) {
  shown.request?.abort();
  clearPrediction();
  byId("photo").hidden = true;
  say("waiting", "Reading the photo…");
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    return say("error", `${name} cannot be read`, "Choose one photo, not a folder.");
  }
  const former = shown.photo;
  const url = URL.createObjectURL(await upright(bytes, file.type));
  shown.photo = { name, bytes, url };
  if (former) URL.revokeObjectURL(former.url);
  image.src = shown.photo.url;
  image.alt = `Your photo, ${name}`;
  byId("photo").querySelector("figcaption").textContent = name;
  await predict();
}

async function predict() {
  shown.request?.abort();
  const request = (shown.request = new AbortController());
  if (!model()) return loadModels();
  clearPrediction();
  say("waiting", "Looking for faces…");
  // A file that is not an image cannot be drawn; the server reports why.
  image.decode().then(() => (byId("photo").hidden = false), () => {});
  const url = `predict?model=${encodeURIComponent(model().name)}`;
  let reply;
  try {
    const { bytes: body } = shown.photo;
    reply = await fetch(url, { method: "POST", body, signal: request.signal });
    shown.text = await reply.clone().text();
  } catch {
    return sayLost(request);
  }
  await image.decode().catch(() => {}); // the boxes need the image's size
  if (request.signal.aborted) return; // another photo or model was chosen meanwhile
  if (reply.ok) return showPrediction(JSON.parse(shown.text));
  const busy = reply.status >= 500;
  say("error", busy ? "The prediction failed" : "This file was rejected",
    await errorOf(reply), busy ? predict : null);
}

/** Distinguishes a stopped server from one that rejected a large body. */
async function sayLost({ signal }) {
  const alive = !signal.aborted && (await fetch("health").then(({ ok }) => ok, () => false));
  if (signal.aborted) return;
  if (!alive) return say("error", ...GONE, predict);
  say("error", "The photo could not be sent",
    "The server closed the connection. The file may be too large.", predict);
}

async function errorOf(reply) {
  const { error } = await reply.json().catch(() => ({}));
  return error ?? `The server responded with status ${reply.status}.`;
}

function clearPrediction() {
  byId("prediction").hidden = true;
  byId("boxes").replaceChildren();
  shown.prediction = null;
}

function showPrediction(prediction) {
  shown.prediction = prediction;
  byId("photo").hidden = false;
  offerDownload();
  if (!prediction.faces.length) return say("none", ...NO_FACE);
  const { length } = prediction.faces;
  const whole = {
    whole_image: "No face was found; the whole photo was used",
    not_cropped: "The whole photo was used, as the model was trained",
  }[prediction.status];
  say("faces", whole ?? (length === 1 ? "1 face" : `${length} faces`),
    length === 1 ? "" : "Select a face in the photo to see its predictions.");
  byId("boxes").replaceChildren(...prediction.faces.map(boxOf));
  choose(largest(prediction.faces));
}

const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
const largest = (faces) => faces.reduce((a, f, i) => (area(f) > area(faces[a]) ? i : a), 0);

/** A button over a face, clipped to the photo. */
function boxOf(face, index) {
  const [height, width] = shown.prediction.image_size;
  const inside = (value, end) => (100 * Math.min(Math.max(value, 0), end)) / end;
  const [left, right] = [face.box[0], face.box[2]].map((x) => inside(x, width));
  const [top, bottom] = [face.box[1], face.box[3]].map((y) => inside(y, height));
  const button = document.createElement("button");
  button.type = "button";
  button.className = top < 8 ? "low" : "";
  Object.assign(button.style, {
    left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
  });
  button.setAttribute("aria-label", `Face ${index + 1}: ${nameOf(face)}`);
  const number = document.createElement("span");
  number.textContent = index + 1;
  if (shown.prediction.faces.length > 1) button.append(number);
  button.onclick = () => choose(index);
  return button;
}

function choose(index) {
  const { faces } = shown.prediction;
  const face = faces[index];
  shown.face = index;
  [...byId("boxes").children].forEach((button, i) =>
    button.setAttribute("aria-pressed", i === index));
  const words = nameOf(face).replaceAll("-", "\u2011"); // "60-100" stays on one line
  byId("which").textContent = `Face ${index + 1} of ${faces.length}`;
  byId("prediction").querySelector("h2").textContent = words[0].toUpperCase() + words.slice(1);
  byId("years").hidden = face.age_years === null;
  byId("years").textContent = `expected age ${face.age_years} years`;
  byId("doubt").hidden = face.heads_agree !== false;
  byId("prediction").querySelector(".turn").hidden = faces.length < 2;
  const { drawn, raw } = charts(face, model());
  byId("charts").replaceChildren(...drawn.map(draw));
  byId("raw").hidden = !raw.length;
  byId("raw").querySelector("div").replaceChildren(...raw.map(draw));
  drawCrop(face.crop_box);
  byId("prediction").hidden = false;
}

/** Draws the part of the photo that the model saw. */
function drawCrop([left, top, right, bottom]) {
  const canvas = byId("prediction").querySelector("canvas");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = image.naturalWidth / shown.prediction.image_size[1];
  const [width, height] = [right - left, bottom - top];
  const fit = canvas.width / Math.max(width, height);
  const across = (canvas.width - width * fit) / 2;
  const down = (canvas.height - height * fit) / 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, left * scale, top * scale, width * scale, height * scale,
    across, down, width * fit, height * fit);
}

/** Offers the server's response as a file named after the photo. */
function offerDownload() {
  const link = byId("download");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([shown.text], { type: "application/json" }));
  link.download = `${shown.photo.name.replace(/\.[^.]*$/, "") || "photo"}.json`;
}

// -- inputs ---------------------------------------------------------------------------

/** Predicts the first file of a drop or a paste. */
function takeFrom(files, name) {
  if (files?.length) return take(files[0], name);
  say("error", "That is not a file",
    "Save the image on this device and choose it, or copy the image itself.");
}

function connectInputs() {
  byId("choose").onclick = () => byId("file").click();
  for (const id of ["file", "capture"]) {
    byId(id).onchange = ({ target }) => {
      if (target.files.length) take(target.files[0]);
      target.value = ""; // the same file can be chosen again
    };
  }
  addEventListener("paste", ({ clipboardData: { files } }) => {
    if (files.length) takeFrom(files, "pasted.png");
  });
  let depth = 0; // dragenter and dragleave are sent for every element
  const dropping = (by) => main.classList.toggle("dropping", (depth += by) > 0);
  addEventListener("dragenter", () => dropping(1));
  addEventListener("dragleave", () => dropping(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(-depth);
    takeFrom(event.dataTransfer.files);
  });
  byId("model").onchange = () => {
    describeModel();
    if (shown.photo) predict();
  };
  const turn = (by) => () => {
    const { length } = shown.prediction.faces;
    choose((shown.face + by + length) % length);
  };
  byId("previous").onclick = turn(-1);
  byId("next").onclick = turn(1);
}

// -- camera ---------------------------------------------------------------------------

/** Phones open their camera app; elsewhere a dialog opens, if there is a camera. */
async function openCamera() {
  const take = byId("take");
  if (matchMedia("(pointer: coarse)").matches) {
    take.onclick = () => byId("capture").click();
    take.hidden = false;
    return;
  }
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  take.hidden = !devices.some(({ kind }) => kind === "videoinput");
  take.onclick = startCamera;
  byId("shoot").onclick = shoot;
  byId("cancel").onclick = () => byId("camera").close();
  byId("camera").onclose = stopCamera;
}

async function startCamera() {
  const trouble = byId("camera-trouble");
  trouble.hidden = true;
  byId("shoot").disabled = true;
  byId("camera").showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280 } });
    video.srcObject = stream;
    if (!byId("camera").open) return stopCamera(); // closed while the browser asked for permission
    await video.play();
    byId("shoot").disabled = false;
  } catch (error) {
    trouble.textContent = error.name === "NotAllowedError"
      ? "The browser is not allowed to use the camera. Allow it in the address bar."
      : `The camera cannot be used: ${error.message}`;
    trouble.hidden = false;
  }
}

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

function shoot() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  byId("camera").close();
  canvas.toBlob((blob) => take(blob, "camera.jpg"), "image/jpeg", 0.92);
}

if (["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) {
  byId("where").textContent = "It stays on this computer. It is held in memory during the " +
    "prediction and is not stored.";
}
connectInputs();
openCamera();
loadModels();
