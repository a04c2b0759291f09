// Runs the model, so that the page never waits: pixels in, pixels out, as the package's pipeline has them. The numbers of
// ranges, rounding and padding are those of image/format.py and inference/pipeline.py, the line drawings image/maker.py's.

const LEAST_PSNR = 40; // dB between WebGPU and WASM on a test image
const FAST_ENOUGH = 40; // milliseconds an image, with which WASM needs no help
const MOST_THREADS = 4;

let runtime; // { base, integrity }
let model; // what model.json says
let threads; // of WASM, where the page is isolated
let engine; // { session, Tensor, using }: what runs the model, the last in words
const runtimes = {}; // ONNX Runtime Web as it was loaded: wasm, webgpu

const handlers = { load, run, speedUp };
let turn = Promise.resolve(); // models are loaded and run one after the other

function inTurn(work) {
  const done = turn.then(work);
  turn = done.catch(() => {});
  return done;
}

self.onmessage = async ({ data }) => {
  const { number } = data;
  try {
    const work = () => handlers[data.to](data);
    const answer = await (data.to === "speedUp" ? work() : inTurn(work));
    const buffers = [answer.pixels?.buffer, answer.source?.pixels.buffer].filter(Boolean);
    self.postMessage({ number, answer }, buffers);
  } catch (error) {
    self.postMessage({ number, error: String(error?.message ?? error) });
  }
};

// --- loading ---

async function openRuntime(kind) {
  if (runtimes[kind]) return runtimes[kind];
  const glue = kind === "webgpu" ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  const load = async (name) => {
    const response = await fetch(runtime.base + name, { integrity: runtime.integrity[name] });
    if (!response.ok) throw new Error(response.status);
    return response.arrayBuffer();
  };
  const script = async (name) => URL.createObjectURL(new Blob([await load(name)], { type: "text/javascript" }));
  try {
    const [code, mjs, wasmBinary] = await Promise.all([script(`ort.${kind}.min.mjs`), script(`${glue}.mjs`), load(`${glue}.wasm`)]);
    const opened = await import(code);
    Object.assign(opened.env.wasm, { wasmPaths: { mjs }, wasmBinary });
    opened.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
    opened.env.logLevel = "error";
    runtimes[kind] = opened;
    return opened;
  } catch (error) {
    const found = `ONNX Runtime Web could not be loaded from ${runtime.base} (${error.message})`;
    throw new Error(`${found}: it is not reached, or is another file than expected. Try again later.`);
  }
}

async function download(url, bytes, number) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${model.name} could not be loaded: the server answered ${response.status}.`);
  const data = new Uint8Array(bytes);
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (length + value.length <= bytes) data.set(value, length);
    length += value.length;
    self.postMessage({ number, progress: length / bytes });
  }
  if (length !== bytes) throw new Error(`the file of ${model.name} has ${length} bytes of ${bytes}: it is damaged. Reload the page.`);
  return data;
}

async function open(kind, folder, number) {
  const file = `${folder}model.onnx?${model.digest.slice(0, 16)}`;
  const [{ InferenceSession, Tensor }, data] = await Promise.all([openRuntime(kind), download(file, model.bytes, number)]);
  const threads = runtimes[kind].env.wasm.numThreads;
  const using = kind === "webgpu" ? "WebGPU" : `WASM, ${threads} thread${threads > 1 ? "s" : ""}`;
  return { session: await InferenceSession.create(data, { executionProviders: [kind] }), Tensor, using };
}

async function load(message) {
  ({ runtime, model } = message);
  const cores = navigator.hardwareConcurrency - 1; // one is the page's
  threads = Math.max(1, Math.min(MOST_THREADS, message.threads || cores));
  await engine?.session.release();
  engine = null;
  engine = await open("wasm", message.folder, message.number);
  return { using: engine.using };
}

// To WebGPU, where there is one that gives the same and is faster (`force`: even where it is not faster). Drawings are
// answered meanwhile.
async function speedUp({ folder, force }) {
  const sped = model;
  const { width, height } = model.board;
  const test = new Uint8ClampedArray(4 * width * height);
  test.forEach((_, at) => (test[at] = 127 + 120 * Math.sin(at * 0.0007) * Math.cos(at * 0.013)));
  const measure = async (candidate) => {
    await translate(candidate, test, width, height); // the first takes its time
    const began = performance.now();
    const { pixels } = await translate(candidate, test, width, height);
    return { pixels, milliseconds: performance.now() - began };
  };
  const compare = async () => {
    if (sped !== model) return false;
    const there = await measure(candidate);
    const squares = here.pixels.reduce((sum, value, at) => sum + (value - there.pixels[at]) ** 2, 0);
    const agrees = 10 * Math.log10((255 ** 2 * test.length) / squares) >= LEAST_PSNR;
    if (!agrees || (there.milliseconds > here.milliseconds && !force)) return false;
    await engine.session.release();
    engine = candidate;
    return true;
  };
  let here;
  let candidate;
  let taken = false;
  try {
    if (!(await navigator.gpu?.requestAdapter())) return {};
    here = await inTurn(() => (sped === model && engine ? measure(engine) : null));
    if (!here || (here.milliseconds < FAST_ENOUGH && !force)) return {};
    candidate = await open("webgpu", folder, 0);
    taken = await inTurn(compare);
  } catch {
    // a browser that has WebGPU but cannot run this model on it
  }
  if (!taken) await candidate?.session.release();
  return { using: engine?.using };
}

// --- running ---

async function run({ width, height, pixels, make }) {
  const began = performance.now();
  let source = { width, height, pixels };
  if (make) source = makeSource(source, model.maker);
  const made = await translate(engine, source.pixels, source.width, source.height);
  return { ...made, source, using: engine.using, milliseconds: performance.now() - began };
}

async function translate({ session, Tensor }, pixels, width, height) {
  const rows = places(height);
  const columns = places(width);
  const shape = [1, model.source.channels, rows.length, columns.length];
  const source = new Tensor("float32", toModelRange(pixels, width, rows, columns), shape);
  const { generated } = await session.run({ source });
  const made = fromModelRange(generated.data, width, height, rows.length, columns.length);
  generated.dispose();
  return { pixels: made, width, height };
}

// For each padded row or column the one that it shows: reflected as far as there are pixels, the border beyond.
function places(size) {
  const padded = Math.max(Math.ceil(size / model.size_multiple) * model.size_multiple, model.minimum_size);
  const before = (padded - size) >> 1;
  return Int32Array.from({ length: padded }, (_, at) => {
    const reached = at - before;
    const reflected = reached < size ? Math.abs(reached) : 2 * (size - 1) - reached;
    return Math.min(size - 1, Math.max(0, reflected));
  });
}

const luma = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16; // as Pillow's

function toModelRange(pixels, width, rows, columns) {
  const { mode, channels } = model.source;
  const area = rows.length * columns.length;
  const values = new Float32Array(channels * area);
  const classes = mode === "labels" ? classFinder(model.source.colors) : null;
  if (classes) values.fill(-1);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      const from = 4 * (row * width + column);
      const [red, green, blue] = [pixels[from], pixels[from + 1], pixels[from + 2]];
      if (classes) {
        values[classes(red, green, blue) * area + at] = 1;
      } else if (mode === "gray") {
        values[at] = luma(red, green, blue) / 127.5 - 1;
      } else {
        values[at] = red / 127.5 - 1;
        values[area + at] = green / 127.5 - 1;
        values[2 * area + at] = blue / 127.5 - 1;
      }
      at++;
    }
  }
  return values;
}

const parts = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));

function classFinder(colors) {
  const known = new Map();
  const all = colors.map(parts);
  return (red, green, blue) => {
    const key = (red << 16) | (green << 8) | blue;
    if (!known.has(key)) {
      const apart = all.map(([r, g, b]) => Math.max(Math.abs(r - red), Math.abs(g - green), Math.abs(b - blue)));
      known.set(key, apart.indexOf(Math.min(...apart)));
    }
    return known.get(key);
  };
}

function fromModelRange(values, width, height, paddedHeight, paddedWidth) {
  const { mode, channels, colors } = model.target;
  const [top, left] = [(paddedHeight - height) >> 1, (paddedWidth - width) >> 1];
  const area = paddedHeight * paddedWidth;
  const shown = colors.map(parts);
  const pixels = new Uint8ClampedArray(4 * width * height).fill(255); // clamps, and rounds halves to even
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += 4) {
      const at = (row + top) * paddedWidth + column + left;
      if (mode === "labels") {
        let best = 0;
        for (let each = 1; each < channels; each++) if (values[each * area + at] > values[best * area + at]) best = each;
        pixels.set(shown[best], to);
      } else {
        for (let part = 0; part < 3; part++) pixels[to + part] = (values[(channels > 1 ? part * area : 0) + at] + 1) * 127.5;
      }
    }
  }
  return pixels;
}

// --- photos → line drawings, in float32 as there: `_lines` (scikit-image's Canny) and `_pencil` ---

const [LINE_SIGMA, WEAK, SHORTEST_LINE] = [1.2, Math.fround(0.4), 16];
const [PENCIL_SIGMA, PENCIL_LIFT, PENCIL_POWER] = [3, 16, 1.5];

function makeSource(photo, maker) {
  const { width, height, pixels } = shrunk(photo, maker.shorter_side);
  const gray = new Float32Array(width * height);
  for (let at = 0; at < gray.length; at++) gray[at] = luma(pixels[4 * at], pixels[4 * at + 1], pixels[4 * at + 2]);
  const drawing = maker.style === "pencil" ? pencil(gray, width, height) : lines(gray, width, height);
  const made = new Uint8ClampedArray(4 * width * height).fill(255);
  drawing.forEach((value, at) => made.fill(value, 4 * at, 4 * at + 3));
  return { width, height, pixels: made };
}

function pencil(gray, width, height) {
  const lifted = gray.map((value) => value + PENCIL_LIFT);
  const blurred = gaussian(lifted, width, height, PENCIL_SIGMA);
  return lifted.map((value, at) => Math.round(Math.min(1, value / blurred[at]) ** PENCIL_POWER * 255));
}

function lines(gray, width, height) {
  const smooth = gaussian(gray.map((value) => Math.sqrt(Math.fround(value / 255))), width, height, LINE_SIGMA);
  const across = filtered(filtered(smooth, width, height, [-1, 0, 1], 1), width, height, [1, 2, 1], 0);
  const down = filtered(filtered(smooth, width, height, [-1, 0, 1], 0), width, height, [1, 2, 1], 1);
  const slope = across.map((value, at) => Math.hypot(value, down[at]));
  const strong = otsu(slope);
  const thin = thinned(across, down, slope, width, height, WEAK * strong);
  const drawn = new Float32Array(width * height).fill(255);
  const seen = new Uint8Array(width * height);
  for (let start = 0; start < thin.length; start++) {
    if (!thin[start] || seen[start]) continue;
    const line = [start]; // with all that it is connected to
    seen[start] = 1;
    for (let next = 0; next < line.length; next++) {
      for (const step of [-width - 1, -width, 1 - width, -1, 1, width - 1, width, width + 1]) {
        const beside = line[next] + step; // the border of the image is never part of a line
        if (thin[beside] && !seen[beside]) {
          seen[beside] = 1;
          line.push(beside);
        }
      }
    }
    if (line.length <= SHORTEST_LINE || !line.some((at) => thin[at] >= strong)) continue;
    for (const at of line) for (const step of [0, 1, width, width + 1]) drawn[at - step] = 0;
  }
  return drawn;
}

// Local maxima of the slope along its direction, between neighbours; elsewhere 0.
function thinned(across, down, slope, width, height, least) {
  const thin = new Float32Array(slope.length);
  for (let row = 1; row < height - 1; row++) {
    for (let column = 1; column < width - 1; column++) {
      const at = row * width + column;
      if (slope[at] < least) continue;
      const [i, j] = [Math.abs(down[at]), Math.abs(across[at])];
      const same = down[at] * across[at] >= 0;
      const steep = same ? i > j : i >= j;
      const weight = steep ? j / i : i / j;
      const straight = steep ? (same ? width : -width) : 1;
      const diagonal = same ? width + 1 : 1 - width;
      const ahead = weight * slope[at + diagonal] + (1 - weight) * slope[at + straight];
      const behind = weight * slope[at - diagonal] + (1 - weight) * slope[at - straight];
      if (ahead <= slope[at] && behind <= slope[at]) thin[at] = slope[at];
    }
  }
  return thin;
}

function otsu(values) {
  const bins = 256;
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  if (low === high) return low;
  const counts = new Float32Array(bins);
  values.forEach((value) => counts[Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins))]++);
  const centers = Float32Array.from(counts, (_, bin) => low + ((bin + 0.5) * (high - low)) / bins);
  const sums = (list) => {
    let sum = 0;
    return list.map((value) => (sum = Math.fround(sum + value)));
  };
  const weighted = counts.map((count, bin) => count * centers[bin]);
  const [below, sumBelow] = [sums(counts), sums(weighted)];
  const [above, sumAbove] = [sums(counts.toReversed()).reverse(), sums(weighted.toReversed()).reverse()];
  let best = 0;
  let most = -1;
  for (let bin = 0; bin + 1 < bins; bin++) {
    const apart = sumBelow[bin] / below[bin] - sumAbove[bin + 1] / above[bin + 1];
    const variance = Math.fround(below[bin] * above[bin + 1] * apart ** 2);
    if (variance > most) [best, most] = [bin, variance];
  }
  return centers[best];
}

function gaussian(values, width, height, sigma) {
  const radius = Math.floor(4 * sigma + 0.5);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, at) => Math.exp(-0.5 * ((at - radius) / sigma) ** 2));
  const sum = kernel.reduce((total, value) => total + value);
  const weights = kernel.map((value) => value / sum);
  return filtered(filtered(values, width, height, weights, 0), width, height, weights, 1);
}

// Along the rows (axis 1) or the columns (axis 0); borders are repeated.
function filtered(values, width, height, kernel, axis) {
  const radius = kernel.length >> 1;
  const [step, length] = axis ? [1, width] : [width, height];
  const out = new Float32Array(values.length);
  for (let at = 0; at < values.length; at++) {
    const place = axis ? at % width : Math.floor(at / width);
    let sum = 0;
    for (let offset = -radius; offset <= radius; offset++) {
      const moved = Math.min(length - 1, Math.max(0, place + offset)) - place;
      sum += kernel[offset + radius] * values[at + moved * step];
    }
    out[at] = sum;
  }
  return out;
}

// So that the shorter side has so many pixels, by Pillow's Lanczos filter; smaller pictures as they are.
function shrunk({ width, height, pixels }, shorterSide) {
  const scale = shorterSide ? shorterSide / Math.min(width, height) : 1;
  if (scale >= 1) return { width, height, pixels };
  const evenly = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)); // as Python rounds
  const [newWidth, newHeight] = [width, height].map((side) => Math.max(1, evenly(side * scale)));
  const narrow = resampled(pixels, width, height, newWidth, 4, 4 * width, 4, 4 * newWidth);
  const small = resampled(narrow, height, newWidth, newHeight, 4 * newWidth, 4, 4 * newWidth, 4);
  return { width: newWidth, height: newHeight, pixels: small };
}

function resampled(pixels, from, count, to, step, stride, newStep, newStride) {
  const factor = from / to;
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  const out = new Uint8ClampedArray(4 * count * to);
  for (let place = 0; place < to; place++) {
    const center = (place + 0.5) * factor;
    const first = Math.max(0, Math.floor(center - 3 * factor + 0.5));
    const end = Math.min(from, Math.floor(center + 3 * factor + 0.5));
    const weights = Array.from({ length: end - first }, (_, at) => {
      const x = (first + at - center + 0.5) / factor;
      return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    });
    const sum = weights.reduce((total, value) => total + value);
    for (let line = 0; line < count; line++) {
      for (let part = 0; part < 4; part++) {
        let value = 0;
        weights.forEach((weight, at) => (value += weight * pixels[(first + at) * step + line * stride + part]));
        out[place * newStep + line * newStride + part] = Math.floor(value / sum + 0.5);
      }
    }
  }
  return out;
}
