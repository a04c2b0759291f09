"use strict";
// The page around the drawing board: what is drawn, opened or filmed goes to the worker, what it makes is shown. At any
// time one picture is being made; when it is there, the newest drawing is next, and those between are dropped.

const MOST_SIDE = 1024; // pixels of a picture, so that any model fits into a browser's memory
const PATIENCE = 4000; // milliseconds for the service worker
const LEAST_PSNR = 40; // dB of `?check`, for weights of fewer bits

const $ = (selector) => document.querySelector(selector);
const options = new URLSearchParams(location.search);
const result = $("#result");
const before = $("#before");
const props = {}; // of the drawing board
let site; // what site.json says
let model; // what model.json says, with its `folder`
let beginBoard; // shows what is in `props.setup`
let worker;
let answers = new Map(); // number of a message → what waits for its answer
let asked = 0;
let ready = false; // the model is loaded
let dirty = false; // there is something newer than what the worker has
let running = false;
let photo = null; // what stands for the board, for the worker to make a source of
let stream = null; // of the camera

// --- words ---

function say(text, wrong = false) {
  $("#said").textContent = text;
  $("#said").classList.toggle("wrong", wrong);
}

const failed = (error) => say(error.message, true);

// --- the worker ---

function ask(message, transfer = [], progress = () => {}) {
  if (!worker) startWorker();
  return new Promise((resolve, reject) => {
    answers.set(++asked, { resolve, reject, progress });
    worker.postMessage({ ...message, number: asked }, transfer);
  });
}

function startWorker() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    const waiting = answers.get(data.number);
    if (!waiting) return;
    if ("progress" in data) return waiting.progress(data.progress);
    answers.delete(data.number);
    if ("error" in data) waiting.reject(new Error(data.error));
    else waiting.resolve(data.answer);
  };
  worker.onerror = (event) => stopWorker(event.message || "the worker did not start");
}

// Also after a lack of memory, which leaves ONNX Runtime in ruins.
function stopWorker(reason) {
  worker?.terminate();
  worker = null;
  const waiting = [...answers.values()];
  answers = new Map();
  waiting.forEach(({ reject }) => reject(new Error(reason)));
}

// --- models ---

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} could not be loaded: the server answered ${response.status}.`);
  return response.json();
}

async function describe({ folder }) {
  return { ...(await json(`models/${folder}/model.json`)), folder: `models/${folder}/` };
}

function load(described) {
  const { runtime } = site;
  const progress = (part) => say(`Loading ${described.name}: ${Math.min(100, Math.round(100 * part))} %`);
  const threads = Number(options.get("threads"));
  return ask({ to: "load", runtime, model: described, folder: described.folder, threads }, [], progress);
}

async function choose(name) {
  stopCamera();
  ready = running = dirty = false;
  photo = null;
  try {
    const described = await describe(site.models.find((each) => each.name === name));
    model = described;
    showModel();
    await Promise.all([loadAgain(), startFrom(1)]);
  } catch (error) {
    failed(error);
  }
}

async function loadAgain() {
  const loading = model;
  const { using } = await load(loading);
  if (loading !== model) return; // another was chosen meanwhile
  say("");
  $("#speed").textContent = using;
  ready = true;
  running = false;
  next();
  await ask({ to: "speedUp", folder: model.folder, force: options.has("gpu") });
}

function showModel() {
  $("#making").hidden = model.maker?.kind !== "edges";
  const facts = Object.entries(model.facts).flatMap(([label, fact]) => [element("dt", label), element("dd", fact)]);
  if (model.link) {
    const link = Object.assign(element("a", model.link), { href: model.link });
    facts.push(element("dt", "On the Hub"), element("dd", ""));
    facts.at(-1).append(link);
  }
  $("#facts").replaceChildren(...facts);
  const buttons = Array.from({ length: model.examples }, (_, at) => {
    const button = Object.assign(element("button", ""), { type: "button" });
    const image = Object.assign(new Image(), { src: `${model.folder}example_${at + 1}.png`, alt: `Example ${at + 1}` });
    button.append(image);
    button.addEventListener("click", () => startFrom(at + 1));
    return button;
  });
  $("#examples").replaceChildren(...buttons);
  $("#examples").parentElement.hidden = !buttons.length;
}

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

// --- what is on the board ---

async function startFrom(number) {
  stopCamera();
  const shown = number <= model.examples ? `${model.folder}example_${number}.png` : null;
  if (shown && !running && !ready) {
    const image = await pixelsOf(await (await fetch(`${model.folder}result_${number}.png`)).blob());
    draw(result, image); // until the model is there
  }
  putOnBoard({ image: shown, key: `${model.name} ${number}` });
}

function putOnBoard(setup) {
  photo = null;
  props.setup = { ...model.board, publish: false, ...setup };
  if (beginBoard) beginBoard();
  else drawingBoard($("#board"), props, (_, callback) => (beginBoard = callback));
}

const board = () => $("#board canvas");

async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  const size = { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) };
  const canvas = Object.assign(document.createElement("canvas"), size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#ffffff"; // where the picture is transparent
  context.fillRect(0, 0, size.width, size.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, size.width, size.height);
  const image = context.getImageData(0, 0, size.width, size.height);
  image.was = { width: bitmap.width, height: bitmap.height };
  bitmap.close();
  return image;
}

async function open(file) {
  stopCamera();
  let image;
  try {
    image = await pixelsOf(file);
  } catch {
    return say(`${file.name || "What came"} is no picture that this browser opens.`, true);
  }
  const { width, height, was } = image;
  if (was.width === width && was.height === height) say("");
  else {
    const sizes = `${was.width}x${was.height} pixels, and is shown here with ${width}x${height}`;
    say(`${file.name || "The picture"} has ${sizes}: a browser has memory for ${MOST_SIDE} a side. \`pix2pix-hub translate\` takes any size.`);
  }
  if (makesSource()) {
    photo = image;
    changed();
  } else {
    putImageOnBoard(image);
  }
}

const makesSource = () => model.maker?.kind === "edges" && $("#make").checked;

function putImageOnBoard(image) {
  const canvas = document.createElement("canvas");
  draw(canvas, image);
  putOnBoard({ width: image.width, height: image.height, image: canvas.toDataURL(), key: `picture ${++asked}` });
}

function draw(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    Object.assign(canvas, { width: image.width, height: image.height });
  }
  canvas.parentElement?.style.setProperty("--shape", image.width / image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// --- what the model makes of it ---

function changed() {
  dirty = true;
  next();
}

async function next() {
  if (!ready || running || !dirty) return;
  dirty = false;
  running = true;
  const asking = { model, photo };
  const canvas = board();
  const image = photo ?? canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const { width, height } = image;
  const pixels = photo ? image.data.slice() : image.data;
  try {
    const made = await ask({ to: "run", width, height, pixels, make: Boolean(photo) && makesSource() }, [pixels.buffer]);
    if (asking.model !== model) return; // another was chosen, which has its own turn
    show(made, asking.photo);
  } catch (error) {
    if (asking.model !== model) return;
    ready = false;
    stopWorker("");
    const what = `${width}x${height} pixels were too much (${error.message}): the model started again. Try a smaller picture.`;
    await startFrom(1);
    loadAgain().then(() => say(what, true), failed);
    return;
  }
  running = false;
  next();
}

function show(made, ofPhoto) {
  const { width, height } = made;
  const source = new ImageData(made.source.pixels, made.source.width, made.source.height);
  draw(result, new ImageData(made.pixels, width, height));
  draw(before, source);
  $("#speed").textContent = `${made.using}, ${Math.round(made.milliseconds)} ms an image`;
  result.dataset.count = 1 + Number(result.dataset.count ?? 0);
  if (!ofPhoto || ofPhoto !== photo) return;
  if (stream) {
    draw(board(), source);
  } else {
    putImageOnBoard(source);
  }
}

// --- the camera ---

async function toggleCamera() {
  if (stream) {
    const last = before.width > 1 ? before.getContext("2d").getImageData(0, 0, before.width, before.height) : null;
    stopCamera();
    if (last) putImageOnBoard(last);
    return;
  }
  const wanted = model;
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
  } catch (error) {
    return say(`The camera cannot be used (${error.message ?? "this page may not ask for it"}).`, true);
  }
  const video = Object.assign(document.createElement("video"), { srcObject: opened, muted: true, playsInline: true });
  await video.play();
  if (wanted !== model) return opened.getTracks().forEach((track) => track.stop());
  stream = opened;
  $("#camera").setAttribute("aria-pressed", true);
  $("#board").inert = true;
  const { width, height } = model.board;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(-1, 0, 0, 1, width, 0); // as in a mirror
  const film = () => {
    if (stream !== opened) return;
    if (ready && !running) {
      const scale = Math.max(width / video.videoWidth, height / video.videoHeight); // its middle
      const size = [video.videoWidth * scale, video.videoHeight * scale];
      context.drawImage(video, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
      photo = context.getImageData(0, 0, width, height);
      changed();
    }
    requestAnimationFrame(film);
  };
  film();
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = photo = null;
  $("#camera").setAttribute("aria-pressed", false);
  $("#board").inert = false;
}

// --- buttons ---

function connect() {
  $("#model").append(...site.models.map(({ name }) => new Option(name, name)));
  $("#model").addEventListener("change", (event) => choose(event.target.value));
  $("#slider").addEventListener("input", (event) => before.style.setProperty("--part", `${event.target.value}%`));
  $("#open").addEventListener("click", () => $("#file").click());
  $("#file").addEventListener("change", ({ target }) => {
    if (target.files.length) open(target.files[0]);
    target.value = "";
  });
  $("#camera").addEventListener("click", toggleCamera);
  $("#camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("#save").addEventListener("click", () => {
    result.toBlob((blob) => {
      const link = Object.assign(document.createElement("a"), { download: "pix2pix.png", href: URL.createObjectURL(blob) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  });
  $("#copy").addEventListener("click", () => {
    const blob = new Promise((resolve) => result.toBlob(resolve));
    navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]).then(
      () => say("The picture is copied."),
      (error) => say(`The browser does not let pages copy pictures (${error.message}): save it instead.`, true),
    );
  });
  const pictureIn = (data) => [...(data?.files ?? [])][0];
  document.addEventListener("paste", (event) => pictureIn(event.clipboardData) && open(pictureIn(event.clipboardData)));
  for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", over);
      if (kind === "drop" && pictureIn(event.dataTransfer)) open(pictureIn(event.dataTransfer));
    });
  }
  addEventListener("hashchange", () => location.reload());
  board().addEventListener("drawn", () => {
    if (!stream) photo = null;
    changed();
  });
}

function followScheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => document.documentElement.classList.toggle("dark", dark.matches);
  dark.addEventListener("change", apply);
  apply();
}

// --- ?check: the shipped examples here, against what the pipeline made of them ---

async function check() {
  $("#check").hidden = false;
  let good = true;
  for (const each of site.models) {
    const described = await describe(each);
    await load(described);
    if (options.has("gpu")) await ask({ to: "speedUp", folder: described.folder, force: true });
    for (let number = 1; number <= described.examples; number++) {
      const stored = (name) => fetch(`${described.folder}${name}_${number}.png`).then((response) => response.blob());
      const { data, width, height } = await pixelsOf(await stored("example"));
      const wanted = (await pixelsOf(await stored("result"))).data;
      const { pixels, using } = await ask({ to: "run", width, height, pixels: data, make: false }, [data.buffer]);
      const [most, squares] = wanted.reduce(
        ([largest, sum], value, at) => [Math.max(largest, Math.abs(value - pixels[at])), sum + (value - pixels[at]) ** 2],
        [pixels.length === wanted.length ? 0 : 255, 0],
      );
      const psnr = 10 * Math.log10((255 ** 2 * wanted.length * 0.75) / squares); // alpha never differs
      const fits = described.precision === "float32" && using.startsWith("WASM") ? most <= 1 : most < 255 && psnr >= LEAST_PSNR;
      good &&= fits;
      const cells = [each.name, `${described.precision}, ${using}`, number, most, psnr.toFixed(1), fits ? "as it should" : "WRONG"];
      const row = element("tr", "");
      row.append(...cells.map((text) => element("td", text)));
      $("#check tbody").append(row);
    }
  }
  say(good ? "Every example gives what the pipeline gives." : "Some examples give something else than the pipeline.", !good);
  document.body.dataset.check = good ? "passed" : "failed";
}

// --- the start ---

// Until what is loaded passes the service worker; on a host without the headers that threads need, one more reload.
async function serviceWorker() {
  if (!("serviceWorker" in navigator)) return;
  const controlled = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE));
  try {
    await navigator.serviceWorker.register("service_worker.js");
    if (!navigator.serviceWorker.controller) await Promise.race([controlled, late]);
    const alone = window.top === window && navigator.serviceWorker.controller && !crossOriginIsolated;
    if (!alone || sessionStorage.getItem("isolated")) return;
    sessionStorage.setItem("isolated", "once");
    location.reload();
    await new Promise(() => {});
  } catch {
    // private windows and old browsers: without it
  }
}

async function start() {
  followScheme();
  if (location.protocol === "file:") {
    return say("Browsers run this page from a server only: type `python -m http.server` in its folder.", true);
  }
  if (typeof WebAssembly !== "object") {
    return say("This browser has no WebAssembly, in which the model runs: use a current one, without a mode that switches it off.", true);
  }
  const registered = serviceWorker();
  if (!crossOriginIsolated) await registered; // the first visit: what is loaded shall pass it
  startWorker();
  site = await json("site.json");
  if (options.has("check")) return check();
  $("main").hidden = false;
  const named = new URLSearchParams(location.hash.slice(1)).get("model");
  const first = site.models.find(({ name }) => name === named) ?? site.models[0];
  connect();
  $("#model").value = first.name;
  await choose(first.name);
}

start().catch(failed);
