// From what the graph gives to what is said of a picture, as vitral's answers/ has it: for each task a row.
// An answer has `top`, [label, share] of 0..1, and perhaps marks to draw: [colour, box or null, mask or null].
// A mask is {height, width, data}: of the picture's places, as finely as it is shown.
"use strict";

const MOST = 100; // objects of a picture, or as many as the model has queries
const SAME = 0.6; // overlap from which two answers of a class mean one object, where answers are repeated
const FINEST = 640; // rows or columns of a mask
const LEFT = 0.8; // of a segment that has to be seen

// [label, probability] of the most probable classes.
function ranked(probabilities, labels, count) {
  const order = [...labels.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  return order.slice(0, count).map((k) => [labels[k], probabilities[k]]);
}

function colour(k) {
  return [40, 200, 320, 130, 265, 0, 90, 175][k % 8] + 11 * Math.floor(k / 8);
}

// Rows and columns of a mask over a picture.
function fineness({height, width}) {
  const scale = Math.min(1, FINEST / Math.max(height, width));
  return [height, width].map((side) => Math.max(1, Math.round(scale * side)));
}

// The two cells whose middles lie around each of `count` places along a side, and the share of the latter.
function between(count, side, slope, start, seen, stride, cells) {
  const last = Math.min(cells, Math.ceil(seen / stride)) - 1;
  return Array.from({length: count}, (_, i) => {
    const place = Math.min(seen, Math.max(0, ((i + 0.5) * side * slope) / count + start));
    const cell = Math.min(last, Math.max(0, place / stride - 0.5));
    const low = Math.floor(cell);
    return [low, Math.min(low + 1, cells - 1), cell - low];
  });
}

// value(from, y, x): of a map of cells, linear between their middles, under a place of the picture.
function linear(rows, columns, image, view, where, stride, cells) {
  const down = between(rows, image.height, where[0], where[1], view.height, stride, cells[0]);
  const across = between(columns, image.width, where[2], where[3], view.width, stride, cells[1]);
  return (from, y, x) => {
    const [top, bottom, v] = down[y];
    const [left, right, u] = across[x];
    const upper = from(top, left) * (1 - u) + from(top, right) * u;
    return upper * (1 - v) + (from(bottom, left) * (1 - u) + from(bottom, right) * u) * v;
  };
}

// The class of every place.
function mapped(found, about, {image, view, where}) {
  const {data, dims} = found.probabilities; // [1, K, h, w]
  const [, K, h, w] = dims;
  const logits = Float32Array.from(data, (p) => Math.log(Math.max(p, 1e-45)));
  const [rows, columns] = fineness(image);
  const value = linear(rows, columns, image, view, where, about.stride, [h, w]);
  const classes = new Int16Array(rows * columns);
  const counts = new Array(K).fill(0);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      let [best, most] = [0, -Infinity];
      for (let k = 0; k < K; k++) {
        const own = value((r, c) => logits[(k * h + r) * w + c], y, x);
        if (own > most) [best, most] = [k, own];
      }
      classes[y * columns + x] = best;
      counts[best]++;
    }
  const there = [...about.labels.keys()].filter((k) => counts[k]).sort((a, b) => counts[b] - counts[a]);
  const marks = there.map((k) => [colour(k), null, {height: rows, width: columns, data: classes.map((each) => each === k)}]);
  return {top: there.map((k) => [about.labels[k], counts[k] / classes.length]), marks, map: classes};
}

function overlap(a, b) {
  const [w, h] = [Math.min(a[2], b[2]) - Math.max(a[0], b[0]), Math.min(a[3], b[3]) - Math.max(a[1], b[1])];
  const shared = Math.max(0, w) * Math.max(0, h);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return shared / Math.max(area(a) + area(b) - shared, 1e-9);
}

// The box of a row of answers in the picture.
function boxed(row, found, {image, view, where}) {
  const [x0, y0, x1, y1] = found.boxes.data.slice(4 * row, 4 * row + 4);
  const across = [x0, x1].map((x) => Math.min(image.width, Math.max(0, (x * view.width - where[3]) / where[2])));
  const down = [y0, y1].map((y) => Math.min(image.height, Math.max(0, (y * view.height - where[1]) / where[0])));
  return [across[0], down[0], across[1], down[1]];
}

// Whether a better answer of the class means the same.
function known(kept, {k, box}) {
  return kept.some((each) => each.k === k && overlap(each.box, box) > SAME);
}

// The objects that score enough, best first: {k, score, box, row}.
function objects(found, about, seen) {
  const {data, dims} = found.scores; // [1, Q, K]
  const [K, most] = [dims[2], Math.max(MOST, dims[1])];
  const order = [...data.keys()].sort((a, b) => data[b] - data[a]).slice(0, about.repeated ? 4 * most : most);
  const kept = [];
  for (const pair of order) {
    if (data[pair] < about.threshold) break;
    const [row, k] = [Math.floor(pair / K), pair % K];
    const box = boxed(row, found, seen);
    if (!(box[2] > box[0] && box[3] > box[1])) continue;
    if (about.repeated && known(kept, {k, box})) continue;
    kept.push({k, score: data[pair], box, row});
  }
  return kept.slice(0, most);
}

// Where an object's mask is above 0, inside its box and a pixel around it.
function masked(object, found, about, {image, view, where}) {
  const {data, dims} = found.masks; // [1, Q, h, w]
  const [, , h, w] = dims;
  const [height, width] = fineness(image);
  const value = linear(height, width, image, view, where, about.stride, [h, w]);
  const [left, top, right, bottom] = object.box;
  const made = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * image.height) / height);
    if (row < Math.floor(top) - 1 || row >= Math.ceil(bottom) + 1) continue;
    for (let x = 0; x < width; x++) {
      const column = Math.floor(((x + 0.5) * image.width) / width);
      if (column < Math.floor(left) - 1 || column >= Math.ceil(right) + 1) continue;
      made[y * width + x] = value((r, c) => data[(object.row * h + r) * w + c], y, x) > 0;
    }
  }
  return {height, width, data: made};
}

function detected(found, about, seen) {
  const kept = objects(found, about, seen);
  return {
    top: kept.map((each) => [about.labels[each.k], each.score]),
    marks: kept.map((each) => [colour(each.k), each.box, found.masks ? masked(each, found, about, seen) : null]),
    boxes: kept.map((each) => each.box),
  };
}

// The rows of answers that score enough, best first; of a class that cannot be counted one means the whole picture.
function candidates(found, about, seen) {
  const [, Q, K] = found.scores.dims;
  const kept = [];
  const every = Array.from({length: Q}, (_, row) => {
    const scores = found.scores.data.subarray(row * K, row * K + K);
    const k = scores.indexOf(Math.max(...scores));
    const stuff = about.stuff.includes(k);
    const box = stuff ? [0, 0, seen.image.width, seen.image.height] : boxed(row, found, seen);
    return {row, k, score: scores[k], stuff, box};
  });
  for (const each of every.sort((a, b) => b.score - a.score))
    if (each.score >= about.threshold && !(about.repeated && !each.stuff && known(kept, each))) kept.push(each);
  return kept;
}

// Segments side by side: a place belongs to the answer with the largest score x mask of those that cover it.
function segmented(found, about, seen) {
  const {image, view, where} = seen;
  const [, , h, w] = found.masks.dims;
  const [height, width] = fineness(image);
  const value = linear(height, width, image, view, where, about.stride, [h, w]);
  const kept = candidates(found, about, seen);
  const owners = new Int16Array(height * width).fill(-1);
  const most = new Float32Array(height * width);
  const [covered, left] = [kept.map(() => 0), kept.map(() => 0)];
  kept.forEach(({row, score, box}, n) => {
    for (let y = 0; y < height; y++) {
      const down = ((y + 0.5) * image.height) / height;
      if (down <= box[1] - 1 || down >= box[3] + 1) continue;
      for (let x = 0; x < width; x++) {
        const across = ((x + 0.5) * image.width) / width;
        if (across <= box[0] - 1 || across >= box[2] + 1) continue;
        const logit = value((r, c) => found.masks.data[(row * h + r) * w + c], y, x);
        if (logit < 0) continue;
        covered[n]++;
        const [place, weight] = [y * width + x, score / (1 + Math.exp(-logit))];
        if (weight > most[place]) [most[place], owners[place]] = [weight, n];
      }
    }
  });
  for (const n of owners) if (n >= 0) left[n]++;
  const segments = [];
  const numbers = kept.map(({k, stuff}, n) => {
    if (!left[n] || left[n] < LEFT * covered[n]) return 0;
    const same = stuff ? segments.findIndex((each) => each.stuff && each.k === k) : -1;
    return same >= 0 ? same + 1 : segments.push({k, stuff});
  });
  const map = owners.map((n) => (n < 0 ? 0 : numbers[n]));
  const masks = segments.map((_, i) => map.map((each) => each === i + 1));
  const share = (mask) => mask.reduce((sum, each) => sum + each, 0) / map.length;
  return {
    top: segments.map(({k}, i) => [about.labels[k], share(masks[i])]),
    marks: segments.map(({k}, i) => [colour(k), null, {height, width, data: masks[i]}]),
    map,
  };
}

const TASKS = {
  classify: (found, about) => ({top: ranked(found.probabilities.data, about.labels, 5)}),
  multilabel: (found, about) => ({
    top: ranked(found.probabilities.data, about.labels, 5),
    labels: ranked(found.probabilities.data, about.labels, about.labels.length).filter(([, p]) => p >= 0.5),
  }),
  semantic: mapped,
  detect: detected,
  instance: detected,
  panoptic: segmented,
};

// Marks over a picture on a canvas: masks as a veil, boxes as frames.
function mark(canvas, image, marks) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / image.width;
  for (const [hue, box, mask] of marks) {
    if (mask) {
      const layer = new OffscreenCanvas(mask.width, mask.height);
      const veil = layer.getContext("2d");
      veil.fillStyle = `hsl(${hue} 80% 50%)`;
      veil.fillRect(0, 0, mask.width, mask.height);
      const pixels = veil.getImageData(0, 0, mask.width, mask.height);
      for (let i = 0; i < mask.data.length; i++) pixels.data[4 * i + 3] = mask.data[i] ? 120 : 0;
      veil.putImageData(pixels, 0, 0);
      context.drawImage(layer, 0, 0, canvas.width, canvas.height);
    }
    if (box) {
      context.strokeStyle = `hsl(${hue} 90% 45%)`;
      context.lineWidth = 3;
      context.strokeRect(box[0] * scale, box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
    }
  }
}
