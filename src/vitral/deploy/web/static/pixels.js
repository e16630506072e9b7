// From a picture to the pixels that the model sees, as vitral's data/steps.py and data/resample.py have it.
// An image is {channels, height, width, data}: values on the 0..255 scale, channel after channel, each row by row.
"use strict";

const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  hamming: [1, (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0)],
};

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// Half to even, as Python rounds.
function evenly(x) {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function word(data, at, length) {
  return String.fromCharCode(...data.subarray(at, at + length));
}

function isPng(data) {
  return word(data, 1, 3) === "PNG";
}

// The parts of a PNG or a WebP file: [name, where its content begins].
function* parts(data) {
  const png = isPng(data);
  const view = new DataView(data.buffer);
  for (let at = png ? 8 : 12; at + 8 <= data.length; ) {
    const size = view.getUint32(png ? at : at + 4, !png);
    yield [word(data, png ? at + 4 : at, 4), at + 8];
    at += png ? 12 + size : 8 + size + (size % 2);
  }
}

// The images in a GIF file: its blocks are images or extensions, and each ends with pieces of data, the last of length 0.
function imagesOfGif(data) {
  const colours = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let images = 0;
  let at = 13 + colours(data[10]);
  while (data[at] === 0x2c || data[at] === 0x21) {
    const image = data[at] === 0x2c;
    images += image;
    at += image ? 11 + colours(data[at + 9]) : 2;
    while (data[at]) at += data[at] + 1;
    at += 1;
  }
  return images;
}

// Whether a GIF, PNG, WebP or AVIF file holds several frames, of which a browser would show the first.
function animated(data) {
  if (word(data, 0, 3) === "GIF") return imagesOfGif(data) > 1;
  if (word(data, 8, 4) === "WEBP") return [...parts(data)].filter(([name]) => name === "ANMF").length > 1;
  if (word(data, 4, 8) === "ftypavis") return true;
  const control = isPng(data) && [...parts(data)].find(([name]) => name === "acTL");
  return Boolean(control) && new DataView(data.buffer).getUint32(control[1]) > 1;
}

// Whether a PNG file's levels have 16 bits, of which a browser reads 8.
function deep(data) {
  return isPng(data) && data[24] === 16;
}

// A file's pixels, upright: 3 channels, or 1 (ITU-R 601 luma). What is transparent lies over white.
async function decoded(file, channels) {
  const options = {colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image"};
  const bitmap = await createImageBitmap(file, options);
  const {width, height} = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const area = width * height;
  const data = new Uint8ClampedArray(channels * area);
  for (let i = 0; i < area; i++) {
    const alpha = rgba[4 * i + 3] / 255;
    const colour = [0, 1, 2].map((c) => Math.round(rgba[4 * i + c] * alpha + 255 * (1 - alpha)));
    if (channels === 1) data[i] = (19595 * colour[0] + 38470 * colour[1] + 7471 * colour[2] + 32768) >> 16;
    else for (let c = 0; c < 3; c++) data[c * area + i] = colour[c];
  }
  return {channels, height, width, data};
}

// The size that a resize makes of height x width.
function sized(step, h, w) {
  const ratios = [h / step.height, w / step.width];
  if (step.rule === "exact") return [step.height, step.width];
  if (step.rule === "share") {
    const factor = Math.max(step.height / h, step.width / w) / step.fraction;
    return [Math.max(step.height, evenly(h * factor)), Math.max(step.width, evenly(w * factor))];
  }
  if (step.rule === "shortest") return shortest(step, h, w).map((side) => side - (side % step.multiple));
  if (step.rule === "within") {
    const scale = Math.min(step.height / h, step.width / w);
    return [Math.trunc(h * scale), Math.trunc(w * scale)];
  }
  const ratio = step.rule === "fit" ? Math.max(...ratios) : Math.min(...ratios);
  return [evenly(h / ratio), evenly(w / ratio)];
}

function shortest(step, h, w) {
  const [short, long] = [Math.min(h, w), Math.max(h, w)];
  let [side, exact] = [step.height, step.height];
  if (step.longest && (long / short) * side > step.longest) {
    exact = (step.longest * short) / long;
    side = evenly(exact);
  }
  const other = short === side ? long : Math.trunc((exact * long) / short);
  return h <= w ? [side, other] : [other, side];
}

// What each pixel of a line of `size` reads of one of `from`: [first, weights].
function taps(from, size, filter) {
  const [reach, weigh] = FILTERS[filter];
  const scale = from / size;
  const wide = Math.max(1, scale);
  return Array.from({length: size}, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
    const weights = Float64Array.from({length: last - first}, (_, k) => weigh((first + k - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// Bits of a weight: PyTorch's, which has two of the filters, as many as the largest allows; else as Pillow's.
function bitsOf(read, {interpolation, arithmetic}) {
  if (arithmetic === "pillow" || !["bilinear", "bicubic"].includes(interpolation)) return 22;
  const largest = read.reduce((most, [, weights]) => Math.max(most, ...weights), 0);
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  return bits;
}

// Along lines that begin at `starts`, whose neighbours are `stride` apart: each of `from` values becomes one of `size`.
function resizedAlong(data, starts, stride, from, size, step) {
  const read = taps(from, size, step.interpolation);
  if (step.rounded) {
    const unit = 2 ** bitsOf(read, step);
    for (const tap of read) tap[1] = tap[1].map((w) => Math.trunc(w * unit + Math.sign(w) * 0.5) / unit);
  }
  const result = new Float32Array(starts.length * size);
  for (let line = 0; line < starts.length; line++) {
    for (let i = 0; i < size; i++) {
      const [first, weights] = read[i];
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * data[starts[line] + (first + k) * stride];
      result[line * size + i] = step.rounded ? Math.min(255, Math.max(0, Math.floor(sum + 0.5))) : sum;
    }
  }
  return result;
}

// Along the rows and then along the columns, each rounded to whole levels.
function resize(image, step) {
  const {channels, height: h, width: w} = image;
  const [height, width] = sized(step, h, w);
  if (height < 1 || width < 1) throw new Error("the picture is too long and thin for this model");
  if (height === h && width === w) return image;
  if (step.interpolation === "nearest") return nearest(image, height, width);
  const rows = Array.from({length: channels * h}, (_, i) => i * w);
  const across = w === width ? image.data : resizedAlong(image.data, rows, 1, w, width, step);
  if (h === height) return {channels, height, width, data: across};
  const columns = [];
  for (let c = 0; c < channels; c++) for (let x = 0; x < width; x++) columns.push(c * h * width + x);
  const turned = resizedAlong(across, columns, width, h, height, step);
  const data = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let x = 0; x < width; x++)
      for (let y = 0; y < height; y++) data[(c * height + y) * width + x] = turned[(c * width + x) * height + y];
  return {channels, height, width, data};
}

function nearest(image, height, width) {
  const {channels, height: h, width: w} = image;
  const place = (i, size, from) => Math.min(from - 1, Math.floor(Math.fround(i + 0.5) * Math.fround(from / size)));
  const data = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        data[(c * height + y) * width + x] = image.data[(c * h + place(y, height, h)) * w + place(x, width, w)];
  return {channels, height, width, data};
}

// `height` x `width` of an image from [top, left], which may be outside; there it is filled.
function cropped(image, top, left, height, width, fill) {
  const {channels, height: h, width: w} = image;
  const data = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++) {
    const around = fill.length === 1 ? fill[0] : fill[c];
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const [row, column] = [y + top, x + left];
        const inside = row >= 0 && row < h && column >= 0 && column < w;
        data[(c * height + y) * width + x] = inside ? image.data[(c * h + row) * w + column] : around;
      }
  }
  return {channels, height, width, data};
}

function begin(size, own, half) {
  if (own > size) return -Math.floor((own - size) / 2);
  return half === "down" ? Math.floor((size - own) / 2) : evenly((size - own) / 2);
}

// Where the model's pixels lie in the picture: rows = a * y + b, columns = c * x + d of the picture's places.
const STEPS = {
  resize(image, step, view) {
    const made = resize(image, step);
    const [down, across] = [made.height / image.height, made.width / image.width];
    return [made, [view[0] * down, view[1] * down, view[2] * across, view[3] * across]];
  },
  center_crop(image, step, view) {
    const top = begin(image.height, step.height, step.half);
    const left = begin(image.width, step.width, step.half);
    return [cropped(image, top, left, step.height, step.width, step.fill), [view[0], view[1] - top, view[2], view[3] - left]];
  },
  pad(image, step, view) {
    if (image.height > step.height || image.width > step.width) throw new Error("the picture does not fit into the model's view");
    return [cropped(image, 0, 0, step.height, step.width, step.fill), view];
  },
  reverse_channels(image, step, view) {
    const area = image.height * image.width;
    const data = new Float32Array(image.data.length);
    for (let c = 0; c < image.channels; c++)
      data.set(image.data.subarray(c * area, (c + 1) * area), (image.channels - 1 - c) * area);
    return [{...image, data}, view];
  },
  as_is: (image, step, view) => [image, view],
};

// [what the model sees, where it lies in the picture]
function seen(image, steps) {
  return steps.reduce(([made, view], step) => STEPS[step.step](made, step, view), [image, [1, 0, 1, 0]]);
}
