// The attention of a query in each layer: requested and decoded, and requested ahead for the neighbours of a patch.

import { bytes, path } from "viewer/api.js";

const REST = 150; // ms without another request before the neighbours are requested

/**
 * `known(now, query)` says whether an answer is here; `read(now, query)` is a promise of its layers, which a later question calls off with
 * an AbortError; `ahead(now, patch, grid)` asks for the patches beside one; `stop()` calls everything off. `now` has model and image.
 */
export function createReadings({ api, busy }) {
  const layersOf = new WeakMap(); // answer -> its layers, decoded
  let [asking, wishing, timer] = [null, null, null];
  const question = ({ model, image }, query) => path(model, image, "attention", { query });

  return {
    known: (now, query) => api.has(question(now, query)),
    async read(now, query) {
      asking?.abort();
      asking = new AbortController();
      const { signal } = asking;
      const answer = api.get(question(now, query), { signal });
      if (!this.known(now, query)) busy(answer);
      const found = await answer;
      signal.throwIfAborted();
      if (!layersOf.has(found)) layersOf.set(found, found.layers.map(decoded));
      return layersOf.get(found);
    },
    ahead(now, [row, column], [h, w]) {
      if (api.exported) return;
      clearTimeout(timer);
      wishing?.abort();
      wishing = new AbortController();
      const { signal } = wishing;
      const beside = [[row, column + 1], [row + 1, column], [row, column - 1], [row - 1, column]];
      timer = setTimeout(async () => {
        for (const [r, c] of beside.filter(([r, c]) => r >= 0 && c >= 0 && r < h && c < w)) {
          await api.get(question(now, `${r},${c}`), { signal }).catch(() => {}); // errors are shown when it is requested for real
          if (signal.aborted) return;
        }
      }, REST);
    },
    stop() {
      clearTimeout(timer);
      asking?.abort();
      wishing?.abort();
    },
  };
}

/** A layer's answer with `maps(i)`, Float32Array [h * w] in 0..1 of each head and then their mean, `even[i]`, what is to be said of one without
 * contrast, and the bytes behind them. */
function decoded(layer) {
  if (layer.why) return layer;
  const all = bytes(layer.data);
  const size = all.length / layer.tops.length;
  return {
    tops: layer.tops, even: layer.even, prefix: layer.prefix, all, size,
    maps(i) {
      const map = new Float32Array(size);
      for (let j = 0; j < size; j++) map[j] = all[i * size + j] / 255;
      return map;
    },
  };
}
