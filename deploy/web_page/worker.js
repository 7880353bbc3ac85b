// Loads a network and runs it, in a worker, so that the page can count the seconds meanwhile.
//
// Receives {network, runtimes, base, input, width, height}; sends {loaded, total} in bytes, {translating: "WebGPU"},
// and at the end {output} or {failed: "download" | "memory" | "network", detail}.

import { hasGPU } from "./gpu.js";

let ort, session;  // session: {run, file, on}
let gpuFailed = false;

/** Fetches files that are known to have so many bytes -> list of Uint8Array */
async function download(files) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let loaded = 0, shown = 0;
  return Promise.all(files.map(async (file) => {
    const response = await fetch(file.url, { cache: "no-cache" });  // asks whether the file has changed
    if (!response.ok) throw new Error(`${file.name}: ${response.status}`);
    const bytes = new Uint8Array(file.bytes), reader = response.body.getReader();
    for (let at = 0; ;) {
      const { done, value } = await reader.read();
      if (done && at === bytes.length) return bytes;
      if (done || at + value.length > bytes.length) throw new Error(`${file.name}: has another size than when exported`);
      bytes.set(value, at);
      at += value.length;
      loaded += value.length;
      if (loaded - shown > 2 ** 18 || loaded === total) postMessage({ loaded: (shown = loaded), total });
    }
  }));
}

/** The names of files may hold characters that mean something else in a URL, such as # */
const urlOf = (name, base) => new URL(name.split("/").map(encodeURIComponent).join("/"), base).href;

async function load({ network, runtimes, base }) {
  const on = !gpuFailed && (await hasGPU()) ? "webgpu" : "wasm", runtime = runtimes[on], at = (name) => urlOf(name, base);
  if (session?.file === network.file && session.on === on) return;
  const before = session;
  session = undefined;
  await before?.release().catch(() => {});  // one on a GPU that was lost cannot be released
  let files, created;
  try {
    const wanted = [{ name: network.file, url: at(network.file), bytes: network.bytes }];
    if (ort?.on !== on) wanted.push({ name: runtime.binary, url: at(runtime.binary), bytes: runtime.bytes });
    files = await download(wanted);
    if (ort?.on !== on) {
      const module = await import(at(runtime.script));
      module.env.wasm.wasmBinary = files[1].buffer;
      module.env.logLevel = "error";
      ort = { on, module };
    }
  } catch (error) {
    throw Object.assign(error, { kind: error instanceof RangeError ? "memory" : "download" });
  }
  created = await ort.module.InferenceSession.create(files[0], { executionProviders: [on], logSeverityLevel: 3 });
  session = { file: network.file, on, run: (feeds) => created.run(feeds), release: () => created.release() };
}

async function translate({ network, input, width, height }) {
  const image = new ort.module.Tensor("float32", input, [1, network.channels, height, width]);
  const { translation } = await session.run({ image });
  return translation.getData();
}

async function answer(job) {
  await load(job);
  postMessage({ translating: session.on === "webgpu" ? "WebGPU" : "WebAssembly" });
  return translate(job);
}

onmessage = async ({ data: job }) => {
  try {
    let output;
    try {
      output = await answer(job);
    } catch (error) {
      if (ort?.on !== "webgpu" || error.kind) throw error;
      gpuFailed = true;  // the processor can do the same, in more time
      output = await answer(job);
    }
    postMessage({ output }, [output.buffer]);
  } catch (error) {
    const text = String(error?.message ?? error);
    const outOfMemory = error instanceof RangeError || /memory|alloc|abort|unreachable|out of bounds/i.test(text);
    postMessage({ failed: error?.kind ?? (outOfMemory || typeof error === "number" ? "memory" : "network"), detail: text });
  }
};
