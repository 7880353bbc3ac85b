// The page: takes a picture, has worker.js translate it, and shows both.
import { hasGPU } from "./gpu.js";
import { decode, fromOutput, largestSize, read, scaledSize, toImageData, toInput } from "./picture.js";

const $ = (id) => document.getElementById(id);
const isPhone = matchMedia("(pointer: coarse)").matches || (navigator.deviceMemory ?? 8) <= 4;
// Bytes that a translation may take. A tab of a phone is ended at one or two GB; WebAssembly has at most 4 GB
const MEMORY = isPhone ? 0.75e9 : 2.5e9;

let config, bitmap, name, worker, timer, job = 0;

/** ---------- What is said ---------- */

const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0);
const sayError = (text) => { $("error").textContent = text; };

function say(text, share) {
  $("status").textContent = text;
  $("progress").hidden = share === undefined;
  if (share === null) $("progress").removeAttribute("value");
  else if (share !== undefined) $("progress").value = share;
}

const FAILURES = {
  download: () => "The network could not be loaded from this server. Check the connection, and try again.",
  memory: () => "There is not enough memory for this size. Choose a smaller one.",
  network: () => "The network cannot translate this picture in this browser.",
};

/** ---------- One translation ---------- */

const network = () => config.networks[Number($("direction").value)];
const mostPixels = () => MEMORY / network().bytes_per_pixel;

/** The worker. It is started from a blob, because such a worker inherits the page's Content-Security-Policy. */
function startWorker() {
  const code = `import ${JSON.stringify(new URL("worker.js", document.baseURI).href)};`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const started = new Worker(url, { type: "module" });
  started.onerror = () => { stop(); sayError(FAILURES.download()); };  // the next one starts anew
  return started;
}

function finish(then) {
  job++;
  clearInterval(timer);
  say("");
  $("stop").hidden = true;
  $("translate").disabled = !bitmap;
  then?.();
}

function stop() {
  worker?.terminate();
  worker = undefined;
  finish();
}

function translate() {
  if (!$("stop").hidden) stop();  // another translation
  sayError("");
  if (!config.runtimes) return sayError("This page is not complete: its runtime, onnxruntime-web, is missing.");
  const wanted = Number($("size").value);
  if (!Number.isInteger(wanted) || wanted < 1) return sayError("The size is a whole number of pixels, at least 1.");
  const size = Math.min(wanted, largestSize(bitmap.width, bitmap.height, mostPixels()));
  const [width, height] = scaledSize(bitmap.width, bitmap.height, size), { channels, out_channels } = network();
  let pixels, input;
  try {
    pixels = read(bitmap, width, height, channels);
    input = toInput(pixels, channels);
  } catch {
    return sayError(FAILURES.memory());
  }
  const mine = ++job, isSmaller = size === network().size && size < Math.min(bitmap.width, bitmap.height);
  const note = size < wanted ? ` ${wanted} pixels would take too much memory here.`
    : isSmaller ? " The network was trained at this size. Enter a larger one for more pixels." : "";
  let began, on;
  $("translate").disabled = true;
  $("stop").hidden = false;
  say("Loading the network …", null);
  worker ??= startWorker();
  worker.onmessage = ({ data }) => {
    if (mine !== job) return;
    if (data.total) say(`Loading the network: ${megabytes(data.loaded)} of ${megabytes(data.total)} MB`, data.loaded / data.total);
    if (data.loaded === data.total && data.total) say("Preparing the network …", null);
    if (data.translating) {
      on = data.translating;
      began = performance.now();
      const tick = () => say(`Translating with ${on}: ${Math.round((performance.now() - began) / 1000)} s`, null);
      clearInterval(timer);
      timer = setInterval(tick, 1000);
      tick();
    }
    if (data.failed) {
      console.error(data.detail);
      stop();  // a worker that ran out of memory cannot go on
      sayError(FAILURES[data.failed]());
    }
    if (data.output) {
      const seconds = (performance.now() - began) / 1000;
      finish(() => show(pixels, fromOutput(data.output, out_channels), width, height));
      $("facts").textContent = `${width} × ${height} pixels, ${seconds.toFixed(1)} s with ${on}.${note}`;
    }
  };
  const { runtimes } = config;
  worker.postMessage({ network: network(), runtimes, base: document.baseURI, input, width, height }, [input.buffer]);
}

function show(before, after, width, height) {
  for (const [id, pixels] of [["before", before], ["after", after]]) {
    Object.assign($(id), { width, height });
    $(id).getContext("2d").putImageData(toImageData(pixels, width, height), 0, 0);
  }
  $("stage").style.setProperty("--aspect", width / height);
  $("result").hidden = false;
  $("result").scrollIntoView({ block: "nearest" });
}

/** ---------- What a visitor does ---------- */

async function open(file) {
  sayError("");
  if (!$("stop").hidden) stop();
  const mine = ++job;
  let opened;
  try {
    opened = await decode(file);
  } catch {
    return sayError(`${file.name}: broken, or not a picture that this browser can read.`);
  }
  if (mine !== job) return opened.close();  // another one came meanwhile
  bitmap?.close();
  [bitmap, name] = [opened, file.name];
  $("result").hidden = true;
  $("translate").disabled = false;
  $("hint").textContent = `${name}, ${bitmap.width} × ${bitmap.height} pixels`;
  translate();
}

async function download() {
  const blob = await new Promise((resolve) => $("after").toBlob(resolve, "image/png"));
  if (!blob) return sayError("There is not enough memory to write the picture.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/\.[^.]*$/, "")}_translated.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function slide() {
  $("stage").style.setProperty("--share", `${$("slider").value}%`);
  $("left").hidden = $("slider").value < 15;
  $("right").hidden = $("slider").value > 85;
}

function offer() {
  const { size } = network();
  $("size").value = size;
  if (bitmap) translate();
}

function listen() {
  for (const id of ["file", "photo"]) $(id).addEventListener("change", () => {
    if ($(id).files[0]) open($(id).files[0]);
    $(id).value = "";  // the same file may be chosen again
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) open(event.clipboardData.files[0]);
    else if (event.target !== $("size")) sayError("The clipboard does not hold a picture.");
  });
  const over = (is) => (event) => { event.preventDefault(); $("drop").classList.toggle("over", is); };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
    else sayError("That was not a picture file. Save the picture, and drop the file.");
  });
  $("translate").addEventListener("click", translate);
  $("size").addEventListener("keydown", (event) => { if (event.key === "Enter" && bitmap) translate(); });
  $("direction").addEventListener("change", offer);
  $("stop").addEventListener("click", stop);
  $("download").addEventListener("click", download);
  $("slider").addEventListener("input", slide);
}

async function start() {
  try {
    config = await (await fetch("networks.json", { cache: "no-cache" })).json();
  } catch {
    return sayError("networks.json could not be loaded from this server.");
  }
  if (config.name) document.title = $("title").textContent = config.name;
  config.networks.forEach(({ label }, i) => $("direction").add(new Option(label, i)));
  if (isPhone) $("hint").textContent = "Choose a picture, or take one.";
  $("directions").hidden = config.networks.length < 2;
  offer();
  listen();
  document.documentElement.dataset.ready = "yes";
  const runtime = config.runtimes?.[(await hasGPU()) ? "webgpu" : "wasm"];
  if (runtime && !bitmap) $("hint").append(` The first one loads ${megabytes(runtime.bytes + network().bytes)} MB.`);
}

start();
