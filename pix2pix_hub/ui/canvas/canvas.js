// The drawing surface: exact colours (nothing is smoothed), one pixel of it for one of the model's.
// `props.setup` says what to draw on: {width, height, colors: [{color, name}], background, free, pen, image, publish}.
// `props.value` becomes the drawing as a PNG data URL each time the pen lifts, which is what Gradio's change event sends.

const HISTORY = 50; // drawings kept for undo

const find = (selector) => element.querySelector(selector);
const canvas = find("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });
const ring = find(".ring");
const sizeInput = find(".size input");
const swatches = find(".swatches");

let tool = "pen";
let color = 0; // of the pen, as one pixel's 32 bits
let background = 0;
let image; // ImageData, and
let pixels; // its pixels, 32 bits each
let past = [];
let future = [];
let cursor = { x: 0, y: 0 };
let last = null; // where the pen was, while it is down

function pack(hex) {
  const value = parseInt(hex.slice(1), 16);
  return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0; // little endian RGBA
}

function show() {
  context.putImageData(image, 0, 0);
  find('[data-act="undo"]').disabled = past.length < 2;
  find('[data-act="redo"]').disabled = !future.length;
}

function publish() {
  props.value = canvas.toDataURL("image/png");
}

function same(a, b) {
  return a.length === b.length && a.every((pixel, index) => pixel === b[index]);
}

function commit() {
  if (past.length && same(pixels, past[past.length - 1])) return;
  past.push(pixels.slice());
  if (past.length > HISTORY) past.shift();
  future = [];
  show();
  publish();
}

function restore(drawing) {
  pixels.set(drawing);
  show();
  publish();
}

function undo() {
  if (past.length < 2) return;
  future.push(past.pop());
  restore(past[past.length - 1]);
}

function redo() {
  if (!future.length) return;
  past.push(future.pop());
  restore(past[past.length - 1]);
}

function stamp(x, y) {
  const radius = sizeInput.valueAsNumber / 2;
  const paint = tool === "erase" ? background : color;
  for (let row = Math.ceil(y - radius); row <= y + radius; row++) {
    if (row < 0 || row >= canvas.height) continue;
    const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
    const from = Math.max(0, Math.ceil(x - half));
    const to = Math.min(canvas.width - 1, Math.floor(x + half));
    if (from <= to) pixels.fill(paint, row * canvas.width + from, row * canvas.width + to + 1);
  }
}

function line(from, to) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y)));
  for (let step = 0; step <= steps; step++) {
    stamp(from.x + ((to.x - from.x) * step) / steps, from.y + ((to.y - from.y) * step) / steps);
  }
}

function fill(place) {
  const width = canvas.width;
  const start = Math.floor(place.y) * width + Math.floor(place.x);
  const replaced = pixels[start];
  if (replaced === color) return;
  const waiting = [start];
  while (waiting.length) {
    const at = waiting.pop();
    if (pixels[at] !== replaced) continue;
    pixels[at] = color;
    if (at % width > 0) waiting.push(at - 1);
    if (at % width < width - 1) waiting.push(at + 1);
    if (at >= width) waiting.push(at - width);
    if (at < pixels.length - width) waiting.push(at + width);
  }
}

function moveRing() {
  const scale = canvas.clientWidth / canvas.width;
  const size = tool === "fill" ? 8 : Math.max(6, sizeInput.valueAsNumber * scale);
  Object.assign(ring.style, {
    left: `${cursor.x * scale}px`, top: `${cursor.y * scale}px`, width: `${size}px`, height: `${size}px`,
  });
}

function moveCursor(x, y) {
  cursor = { x: Math.min(canvas.width - 0.5, Math.max(0, x)), y: Math.min(canvas.height - 0.5, Math.max(0, y)) };
  moveRing();
  return cursor;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) * canvas.width) / box.width;
  return moveCursor(x, ((event.clientY - box.top) * canvas.height) / box.height);
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  const at = place(event);
  if (tool === "fill") {
    fill(at);
    commit();
  } else {
    last = at;
    line(at, at);
    show();
  }
});
canvas.addEventListener("pointermove", (event) => {
  const at = place(event);
  if (!last) return;
  line(last, at);
  last = at;
  show();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (!last) return;
    last = null;
    commit();
  });
}
for (const enter of ["pointerenter", "focus"]) {
  canvas.addEventListener(enter, () => (ring.style.display = "block"));
}
for (const leave of ["pointerleave", "blur"]) {
  canvas.addEventListener(leave, () => (ring.style.display = "none"));
}

canvas.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 1 : Math.max(1, sizeInput.valueAsNumber / 2);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const command = (event.ctrlKey || event.metaKey) && event.key.toLowerCase();
  if (moves[event.key]) {
    moveCursor(cursor.x + moves[event.key][0], cursor.y + moves[event.key][1]);
  } else if (event.key === " " || event.key === "Enter") {
    if (tool === "fill") fill(cursor);
    else stamp(cursor.x, cursor.y);
    commit();
  } else if (command === "z") {
    if (event.shiftKey) redo();
    else undo();
  } else if (command === "y") {
    redo();
  } else {
    return;
  }
  event.preventDefault();
});

find(".tools").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.tool) {
    tool = button.dataset.tool;
    element.querySelectorAll("[data-tool]").forEach((each) => each.setAttribute("aria-pressed", each === button));
  }
  if (button.dataset.act === "undo") undo();
  if (button.dataset.act === "redo") redo();
  if (button.dataset.act === "clear") {
    pixels.fill(background);
    commit();
  }
});
sizeInput.addEventListener("input", moveRing);

function addSwatch(hex, name, checked) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), {
    type: "radio", name: `paint-${element.id}`, value: hex, checked,
  });
  const dot = Object.assign(document.createElement("span"), { className: "dot" });
  dot.style.background = hex;
  label.append(radio, dot, name);
  radio.addEventListener("change", () => (color = pack(radio.value)));
  swatches.append(label);
  if (checked) color = pack(hex);
  return { label, radio, dot };
}

function addOwnColor() {
  const { label, radio, dot } = addSwatch("#808080", "own colour", false);
  const picker = Object.assign(document.createElement("input"), { type: "color", value: "#808080" });
  picker.setAttribute("aria-label", "Own colour");
  picker.addEventListener("input", () => {
    radio.value = dot.style.background = picker.value;
    radio.checked = true;
    color = pack(picker.value);
  });
  label.append(picker);
}

function begin(setup) {
  past = [];
  future = [];
  last = null;
  background = pack(setup.background);
  const repainted = JSON.stringify(setup.colors) !== swatches.dataset.colors;
  if (repainted) {
    swatches.dataset.colors = JSON.stringify(setup.colors);
    swatches.replaceChildren();
    const paints = setup.colors.filter((each) => each.color !== setup.background);
    const first = paints.length ? paints[0].color : setup.background;
    setup.colors.forEach((each) => addSwatch(each.color, each.name, each.color === first));
    if (setup.free) addOwnColor();
    sizeInput.max = Math.round(setup.width / 4);
    sizeInput.value = setup.pen || Math.max(2, Math.round(setup.width / 14));
  }
  canvas.width = setup.width;
  canvas.height = setup.height;
  cursor = { x: setup.width / 2, y: setup.height / 2 };
  context.fillStyle = setup.background;
  context.fillRect(0, 0, setup.width, setup.height);
  const start = () => {
    image = context.getImageData(0, 0, setup.width, setup.height);
    pixels = new Uint32Array(image.data.buffer);
    past = [pixels.slice()];
    show();
    moveRing();
    if (setup.publish) publish();
    canvas.dataset.ready = setup.key;
  };
  if (!setup.image) return start();
  const picture = new Image();
  picture.onload = () => {
    if (props.setup.key !== setup.key) return; // another one was begun meanwhile
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, setup.width, setup.height);
    start();
  };
  picture.src = setup.image;
}

watch("setup", () => begin(props.setup));
begin(props.setup);
