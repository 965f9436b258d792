"use strict";

const at = (id) => document.getElementById(id);
const NAMES = { B2A: "B to A", A2B: "A to B" };
let about, upload, direction, point;
// Answers of earlier requests are dropped.
let newest = 0, waiting = 0;

async function ask(path, options) {
  waiting += 1;
  at("busy").hidden = false;
  try {
    const response = await fetch(path, options);
    const content = await response.json();
    if (!response.ok) throw new Error(content.error);
    return content;
  } finally {
    at("busy").hidden = --waiting === 0;
  }
}

function query(more) {
  const checkpoint = about.checkpoints[at("slider").value].name;
  return new URLSearchParams({ direction, checkpoint, ...more });
}

function show(id, source) {
  const picture = at(id);
  picture.closest("figure").hidden = !source;
  if (source) picture.src = source;
}

function complain(error) {
  const away = error instanceof TypeError ? "The server does not answer. Was it stopped?" : "";
  at("error").hidden = !error;
  at("error").textContent = error ? away || error.message : "";
}

async function paint() {
  if (!upload) return;
  const number = ++newest;
  try {
    const painting = await ask(`paint?${query()}`, { method: "POST", body: upload });
    if (number !== newest) return;
    for (const id of ["image", "translated", "back", "mask"]) show(id, painting[id]);
    at("save").href = painting.translated;
    at("drop").hidden = true;
    at("pictures").hidden = false;
    complain();
    if (point) await look(number);
  } catch (error) {
    if (number === newest) complain(error);
  }
}

async function look(number) {
  const asked = point;
  const { maps } = await ask(`attention?${query(asked)}`, { method: "POST", body: upload });
  if (number !== newest || asked !== point) return;
  at("none").hidden = maps.length > 0;
  at("maps").replaceChildren(...maps.map(({ block, picture }) => {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    figure.className = "card";
    image.src = picture;
    image.alt = caption.textContent = `Block ${block}`;
    figure.append(image, caption);
    return figure;
  }));
  at("attention").hidden = false;
}

function take(file) {
  if (!file) return;
  upload = file;
  point = undefined;
  at("point").hidden = at("attention").hidden = true;
  paint();
}

function choose(chosen) {
  direction = chosen;
  for (const button of at("directions").children) button.setAttribute("aria-checked", button.value === chosen);
  at("there").textContent = `Translation, ${NAMES[chosen]}`;
  paint();
}

function label() {
  const { images } = about.checkpoints[at("slider").value];
  at("images").textContent = images === null ? "" : `at ${images.toLocaleString("en")} images`;
}

async function start() {
  about = await ask("about");
  at("weights").textContent = about.weights;
  at("slider").max = about.checkpoints.length - 1;
  at("slider").value = at("slider").max;
  at("checkpoint").hidden = about.checkpoints.length < 2;
  label();
  for (const value of [...about.directions].sort().reverse()) {
    const button = document.createElement("button");
    Object.assign(button, { value, textContent: NAMES[value], onclick: () => choose(value) });
    button.setAttribute("role", "radio");
    at("directions").append(button);
  }
  choose(at("directions").firstChild.value);
  document.documentElement.dataset.ready = "";
}

at("slider").oninput = label;
at("slider").onchange = paint;
at("file").onchange = (event) => {
  take(event.target.files[0]);
  // The same file again is a change too.
  event.target.value = "";
};
at("frame").onclick = (event) => {
  const box = at("image").getBoundingClientRect();
  point = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  Object.assign(at("point").style, { left: `${100 * point.x}%`, top: `${100 * point.y}%` });
  at("point").hidden = false;
  look(newest).catch(complain);
};
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
};
document.ondragleave = () => document.body.classList.remove("dragging");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
};
document.onpaste = (event) => take(event.clipboardData.files[0]);
start().catch(complain);
