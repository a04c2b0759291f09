// The drawing surface: exact colours (nothing is smoothed), one pixel of it for one of the model's.
// `props.setup` says what to draw on: {model, width, height, colors: [{color, name}], background, free, pen, image, publish}.
// The canvas sends "drawn" whenever it changes. With `every` in the setup `props.value` becomes the drawing as a PNG data
// URL, when the pen lifts and as often as after so many milliseconds before: that is what Gradio's change event sends.

const HISTORY = 50; // drawings kept for undo, of as many pixels together as
const HISTORY_PIXELS = 2 ** 24;
const LINK_LENGTH = 30000; // characters of a drawing in a link
const LINK_PIXELS = 2 ** 20;

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
let anchor; // where it came down, and
let before; // what was drawn then: of lines and rectangles only the last is kept
let publishing = 0; // timer
let linked = new URLSearchParams(location.hash.slice(1)); // the drawing that the address holds, until it is shown

function pack(hex) {
  const value = parseInt(hex.slice(1), 16);
  return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0; // little endian RGBA
}

function show() {
  context.putImageData(image, 0, 0);
  find('[data-act="undo"]').disabled = past.length < 2;
  find('[data-act="redo"]').disabled = !future.length;
  canvas.dispatchEvent(new Event("drawn"));
}

function publish() {
  clearTimeout(publishing);
  publishing = 0;
  if (props.setup.every) props.value = canvas.toDataURL("image/png");
}

function same(a, b) {
  return a.length === b.length && a.every((pixel, index) => pixel === b[index]);
}

function commit() {
  find(".told").textContent = ""; // the link is of another drawing
  if (past.length && same(pixels, past[past.length - 1])) return;
  past.push(pixels.slice());
  while (past.length > HISTORY || (past.length > 2 && past.length * pixels.length > HISTORY_PIXELS)) past.shift();
  future = [];
  show();
  publish();
}

function restore(drawing) {
  find(".told").textContent = "";
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

function stamp(x, y, pressure) {
  const radius = (sizeInput.valueAsNumber * pressure) / 2;
  const paint = tool === "erase" ? background : color;
  pixels[Math.floor(y) * canvas.width + Math.floor(x)] = paint; // however thin the pen is
  for (let row = Math.ceil(y - radius - 0.5); row <= y + radius - 0.5; row++) {
    if (row < 0 || row >= canvas.height) continue;
    const half = Math.sqrt(Math.max(0, radius * radius - (row + 0.5 - y) ** 2));
    const from = Math.max(0, Math.ceil(x - half - 0.5));
    const to = Math.min(canvas.width - 1, Math.floor(x + half - 0.5));
    if (from <= to) pixels.fill(paint, row * canvas.width + from, row * canvas.width + to + 1);
  }
}

function line(from, to, pressure = 1) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y)));
  for (let step = 0; step <= steps; step++) {
    stamp(from.x + ((to.x - from.x) * step) / steps, from.y + ((to.y - from.y) * step) / steps, pressure);
  }
}

// Filled where colours are classes; where there are but two it is a line drawing's outline.
function rectangle(from, to) {
  if (props.setup.colors.length === 2) {
    const corners = [from, { x: to.x, y: from.y }, to, { x: from.x, y: to.y }];
    corners.forEach((corner, number) => line(corner, corners[(number + 1) % 4]));
    return;
  }
  const [left, right] = [Math.min(from.x, to.x), Math.max(from.x, to.x)].map(Math.floor);
  for (let row = Math.floor(Math.min(from.y, to.y)); row <= Math.max(from.y, to.y); row++) {
    pixels.fill(color, row * canvas.width + left, row * canvas.width + right + 1);
  }
}

const isShape = () => tool === "line" || tool === "rectangle";

function lower(at, pressure = 1) {
  last = anchor = at;
  before = isShape() ? pixels.slice() : null;
  move(at, pressure);
}

function move(at, pressure = 1) {
  if (before) pixels.set(before);
  if (before && tool === "rectangle") rectangle(anchor, at);
  else line(before ? anchor : last, at, pressure);
  last = at;
  show();
  if (props.setup.every && !publishing) publishing = setTimeout(publish, props.setup.every);
}

function lift() {
  last = before = null;
  commit();
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

function pressureOf(event) {
  return event.pointerType === "pen" && event.pressure ? 2 * event.pressure : 1;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  const at = place(event);
  if (tool === "fill") {
    fill(at);
    commit();
  } else {
    lower(at, pressureOf(event));
  }
});
canvas.addEventListener("pointermove", (event) => {
  const at = place(event);
  if (last) move(at, pressureOf(event));
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => last && lift());
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
    const at = moveCursor(cursor.x + moves[event.key][0], cursor.y + moves[event.key][1]);
    if (before) move(at);
  } else if (event.key === " " || event.key === "Enter") {
    if (tool === "fill") fill(cursor);
    else if (!before) lower(cursor);
    if (!isShape() || cursor !== anchor) lift(); // a shape's first corner waits for its second
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
    if (last) lift();
    tool = button.dataset.tool;
    element.querySelectorAll("[data-tool]").forEach((each) => each.setAttribute("aria-pressed", each === button));
  }
  if (button.dataset.act === "link") copyLink();
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

// --- links: `#model=…&drawing=…`, which holds width, height, colours, and each pixel's number among these, deflated ---

function through(bytes, stream) {
  return new Blob([bytes]).stream().pipeThrough(stream);
}

async function copyLink() {
  const colors = [...new Set(pixels)];
  const numbers = new Map(colors.map((each, number) => [each, number]));
  const head = [canvas.width & 255, canvas.width >> 8, canvas.height & 255, canvas.height >> 8, colors.length - 1];
  const rgb = colors.flatMap((each) => [each & 255, (each >> 8) & 255, (each >> 16) & 255]);
  let text = "";
  if (colors.length <= 256) {
    const bytes = new Uint8Array(head.length + rgb.length + pixels.length);
    bytes.set([...head, ...rgb]);
    pixels.forEach((each, at) => (bytes[head.length + rgb.length + at] = numbers.get(each)));
    const deflated = new Response(through(bytes, new CompressionStream("deflate-raw")));
    const small = new Uint8Array(await deflated.arrayBuffer());
    if (small.length < LINK_LENGTH) text = btoa(String.fromCharCode(...small)).replace(/\+/g, "-").replace(/\//g, "_");
  }
  if (!text || text.length > LINK_LENGTH) {
    find(".told").textContent = "This is too much for a link, which holds drawings: save the picture instead.";
    return;
  }
  history.replaceState(null, "", `#${new URLSearchParams({ model: props.setup.model, drawing: text })}`);
  find(".told").textContent = await navigator.clipboard.writeText(location.href).then(
    () => "The link to this drawing is copied.",
    () => "The link to this drawing is in the address bar.",
  );
}

async function readLink(text) {
  const packed = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
  const reader = through(packed, new DecompressionStream("deflate-raw")).getReader();
  const bytes = new Uint8Array(LINK_PIXELS + 1024);
  let length = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    bytes.set(part.value, length); // which throws when it is too much
    length += part.value.length;
  }
  const [width, height, count] = [bytes[0] | (bytes[1] << 8), bytes[2] | (bytes[3] << 8), bytes[4] + 1];
  const start = 5 + 3 * count;
  if (!width || !height || length !== start + width * height) throw new Error("another length");
  const drawing = new ImageData(width, height);
  drawing.data.forEach((_, at) => {
    drawing.data[at] = at % 4 === 3 ? 255 : bytes[5 + 3 * bytes[start + (at >> 2)] + (at % 4)];
  });
  return drawing;
}

function begin(setup) {
  find(".told").textContent = "";
  past = [];
  future = [];
  last = before = null;
  background = pack(setup.background);
  const repainted = JSON.stringify(setup.colors) !== swatches.dataset.colors;
  if (repainted) {
    swatches.dataset.colors = JSON.stringify(setup.colors);
    swatches.replaceChildren();
    const paints = setup.colors.filter((each) => each.color !== setup.background);
    const first = paints.length ? paints[0].color : setup.background;
    setup.colors.forEach((each) => addSwatch(each.color, each.name, each.color === first));
    if (setup.free) addOwnColor();
  }
  if (repainted || setup.width !== canvas.width) {
    sizeInput.max = Math.round(setup.width / 4);
    sizeInput.value = setup.pen || Math.max(2, Math.round(setup.width / 14));
  }
  canvas.width = setup.width;
  canvas.height = setup.height;
  canvas.style.maxWidth = `${(70 * setup.width) / setup.height}vh`; // tall pictures stay on the screen
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
  const drawing = linked.get("drawing");
  if (drawing && (linked.get("model") ?? setup.model) === setup.model) {
    linked = new URLSearchParams();
    readLink(drawing).then(
      ({ width, height, data }) => {
        const picture = Object.assign(document.createElement("canvas"), { width, height });
        picture.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
        begin({ ...setup, width, height, image: picture.toDataURL(), publish: true });
      },
      () => {
        begin(setup);
        find(".told").textContent = "The drawing in this link is damaged: here is an example instead.";
      },
    );
    return;
  }
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
