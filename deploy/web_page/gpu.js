/** Whether WebGPU works, and not on the processor: WebAssembly is faster there. For the page and its worker */
export async function hasGPU() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}
