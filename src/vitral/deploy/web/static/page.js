// The page: pictures are dropped, read and answered on this device. Nothing is asked of any server.
"use strict";

const SHOWN = 640; // pixels of a picture's longer side on the page
const ROWS = 12; // of an answer
const DEEP = "browsers read 16-bit PNGs as 8 bits, so vitral predict can differ a little";
const about = JSON.parse(document.getElementById("about").textContent);
let session = null;

// The bytes of what a script beside the page holds in base64, part by part.
function bytes(parts) {
  const pieces = parts.map((part) => Uint8Array.from(atob(part), (c) => c.charCodeAt(0)));
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  parts.length = 0;
  return whole;
}

async function opened() {
  ort.env.wasm.numThreads = 1; // more need headers that a folder has not
  ort.env.wasm.wasmBinary = bytes(stored.runtime).buffer;
  const loader = new Blob([new TextDecoder().decode(bytes(stored.loader))], {type: "text/javascript"});
  ort.env.wasm.wasmPaths = {mjs: URL.createObjectURL(loader)};
  return ort.InferenceSession.create(bytes(stored.model), {executionProviders: ["wasm"]});
}

// What the model says of a file: {top, ...}, the picture's size, seconds, and whether its levels have 16 bits.
async function answered(file) {
  const began = performance.now();
  const data = new Uint8Array(await file.arrayBuffer());
  if (animated(data)) throw new Error("the picture holds several frames; save the one wanted as a file of its own");
  const image = await decoded(file, about.channels);
  if (Math.min(image.height, image.width) < about.min_size) throw new Error(`the picture is smaller than ${about.min_size} pixels`);
  const [view, where] = seen(image, about.steps);
  const Kind = about.input === "uint8" ? Uint8Array : Float32Array;
  const tensor = new ort.Tensor(about.input, Kind.from(view.data), [1, view.channels, view.height, view.width]);
  const found = await session.run({pixels: tensor});
  const answer = TASKS[about.task](found, about, {image, view, where});
  const seconds = (performance.now() - began) / 1000;
  return {...answer, height: image.height, width: image.width, seconds, deep: deep(data)};
}

function element(kind, words, ...inside) {
  const made = document.createElement(kind);
  if (words) made.className = words;
  made.append(...inside);
  return made;
}

function percent(p) {
  return `${(100 * p).toFixed(1)} %`;
}

// Whether a row stands out: the class, or each label that the picture has.
function rises(answer, p, i) {
  return answer.labels ? p >= 0.5 : i === 0;
}

// A row: its name, its share, and a bar; hue: of its mark on the picture.
function row(label, p, first, hue) {
  const bar = element("i");
  bar.style.width = percent(p).replace(" ", "");
  if (hue !== undefined) bar.style.background = `hsl(${hue} 80% 50%)`;
  return element("div", first ? "row first" : "row", element("b", "", label), element("span", "", percent(p)), element("div", "bar", bar));
}

async function picture(file) {
  const bitmap = await createImageBitmap(file, {imageOrientation: "from-image"});
  const scale = Math.min(1, SHOWN / Math.max(bitmap.width, bitmap.height));
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function said(text, wrong = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = wrong ? "wrong" : "";
}

function add(article) {
  document.getElementById("results").prepend(article);
}

async function show(file) {
  said(`looking at ${file.name} …`);
  await new Promise((drawn) => setTimeout(drawn, 20));
  try {
    const canvas = await picture(file);
    const answer = await answered(file);
    const list = element("div", "", element("h2", "", file.name));
    if (answer.labels && !answer.labels.length) list.append(element("p", "", "none of the labels"));
    if (!answer.top.length) list.append(element("p", "", "nothing found"));
    answer.top.slice(0, ROWS).forEach(([label, p], i) => list.append(row(label, p, rises(answer, p, i), answer.marks?.[i][0])));
    if (answer.top.length > ROWS) list.append(element("p", "", `and ${answer.top.length - ROWS} more`));
    mark(canvas, answer, answer.marks ?? []);
    list.append(element("div", "took", `${answer.seconds.toFixed(2)} s on this device${answer.deep ? `; ${DEEP}` : ""}`));
    add(element("article", "result", canvas, list));
  } catch (error) {
    const why = element("article", "refused", element("h2", "", file.name), element("p", "", error.message ?? `${error}`));
    why.setAttribute("role", "alert");
    add(why);
  }
  said("");
}

async function showAll(files) {
  for (const file of files) await show(file);
}

const drop = document.getElementById("drop");
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (session) showAll([...event.dataTransfer.files]);
});
drop.querySelector("input").addEventListener("change", (event) => session && showAll([...event.target.files]));
said("loading the model …");
opened().then(
  (made) => {
    session = made;
    said("");
    document.body.dataset.ready = "yes";
  },
  (error) => said(`the model cannot be loaded: ${error.message ?? error}`, true),
);
