// From a picture file to the numbers of a network and back, as translate.py does it. No part of the page.

const MOST_PIXELS = 2 ** 22;  // of the canvas that a picture is read through, in strips; phones limit its area

/** File -> ImageBitmap, EXIF orientation applied, in sRGB. Rejects a file that the browser cannot decode. */
export const decode = (file) => createImageBitmap(file, { imageOrientation: "from-image" });

/** Python's round(), which is not Math.round() halfway between two numbers */
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

/** [width, height] after scaling the shorter side to `size`: translate.py --size */
export function scaledSize(width, height, size) {
  const factor = size / Math.min(width, height);
  return [width, height].map((side) => Math.max(1, round(side * factor)));
}

/** The largest `size` at which a picture has at most so many pixels */
export function largestSize(width, height, pixels) {
  let size = Math.max(1, Math.floor(Math.min(width, height) * Math.sqrt(pixels / (width * height))));
  for (; size > 1; size--) {
    const [newWidth, newHeight] = scaledSize(width, height, size);
    if (newWidth * newHeight <= pixels) break;
  }
  return size;
}

/**
 * ImageBitmap -> Uint8Array (newHeight, newWidth, channels), transparency on white, resized as Pillow does it with
 * BICUBIC: the same filter, the same integers, rows first. Nothing is resized that has the size already.
 *
 * channels: 1 for gray, 3 for RGB
 */
export function read(bitmap, newWidth, newHeight, channels) {
  const { width, height } = bitmap, rows = Math.max(1, Math.min(height, Math.floor(MOST_PIXELS / width)));
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = rows;
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new RangeError("no memory for a canvas");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  const across = width === newWidth ? null : weights(width, newWidth);
  const narrow = new Uint8Array(height * newWidth * channels);
  for (let top = 0; top < height; top += rows) {
    const n = Math.min(rows, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, n, 0, 0, width, n);
    const strip = withChannels(context.getImageData(0, 0, width, n).data, channels);
    const part = narrow.subarray(top * newWidth * channels);
    if (across) resample(strip, part, n, across, width * channels, channels, newWidth * channels, channels, channels);
    else part.set(strip);
  }
  if (height === newHeight) return narrow;
  const result = new Uint8Array(newHeight * newWidth * channels), row = newWidth * channels;
  resample(narrow, result, newWidth, weights(height, newHeight), channels, row, channels, row, channels);
  return result;
}

/** RGBA of an opaque image -> RGB or gray. Gray is Pillow's integer formula (ITU-R 601) */
export function withChannels(rgba, channels) {
  const n = rgba.length / 4, pixels = new Uint8Array(n * channels);
  for (let i = 0; i < n; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 3) { pixels[3 * i] = r; pixels[3 * i + 1] = g; pixels[3 * i + 2] = b; }
    else pixels[i] = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
  }
  return pixels;
}

/** RGB or gray -> ImageData */
export function toImageData(pixels, width, height) {
  const image = new ImageData(width, height), channels = pixels.length / (width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** Bytes (height, width, channels) -> float32 (channels, height, width) in [-1, 1] */
export function toInput(pixels, channels) {
  const n = pixels.length / channels, input = new Float32Array(pixels.length);
  for (let i = 0; i < n; i++) for (let c = 0; c < channels; c++) {
    input[c * n + i] = Math.fround(pixels[channels * i + c] / 127.5) - 1;
  }
  return input;
}

/** The reverse of toInput. This kind of array rounds half to even, as PyTorch does, and clips to 0..255. */
export function fromOutput(output, channels) {
  const n = output.length / channels, pixels = new Uint8ClampedArray(output.length);
  for (let i = 0; i < n; i++) for (let c = 0; c < channels; c++) {
    pixels[channels * i + c] = Math.fround(Math.fround(output[c * n + i] + 1) * 127.5);
  }
  return pixels;
}

const BITS = 22;  // of the fraction of a weight

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** For each of n new positions: [first old position, weights as integers]. When shrinking, the filter is wider. */
function weights(old, n) {
  const scale = old / n, stretch = Math.max(1, scale), support = 2 * stretch;
  return Array.from({ length: n }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(old, Math.trunc(center + support + 0.5));
    const values = Array.from({ length: end - first }, (_, j) => bicubic((j + first - center + 0.5) * (1 / stretch)));
    const sum = values.reduce((a, b) => a + b, 0);
    return [first, Int32Array.from(values, (value) => {
      const share = (sum ? value / sum : value) * 2 ** BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    })];
  });
}

/**
 * Resizes `lines` lines of bytes along one axis.
 * oldLine, oldStep: distance from one line, and from one pixel of a line, to the next in `from`; newLine, newStep: in `to`
 */
function resample(from, to, lines, table, oldLine, oldStep, newLine, newStep, channels) {
  for (let line = 0; line < lines; line++) for (let i = 0; i < table.length; i++) {
    const [first, values] = table[i], start = line * oldLine + first * oldStep;
    for (let c = 0; c < channels; c++) {
      let sum = 2 ** (BITS - 1);
      for (let j = 0, at = start + c; j < values.length; j++, at += oldStep) sum += from[at] * values[j];
      to[line * newLine + i * newStep + c] = Math.max(0, Math.min(255, sum >> BITS));
    }
  }
}
