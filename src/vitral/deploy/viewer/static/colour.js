// Colours: scales for a map's values, and a picture as dark lead or as glass with light behind it.

// Scales at nine equal steps, linear between. "light" is amber glass, from dark lead to a bright window, for maps without their picture;
// those of vitral's own pictures come from the server.
const ANCHORS = {
  light: ["15171d", "2a241f", "4a3722", "6f4e24", "966827", "bf852f", "e3a745", "f8cc7c", "fff0cc"],
};
const AMBER = [255, 186, 84];
const SUN = [1, 0.95, 0.82];
export const COOL = [96, 178, 255];
export const CHOSEN = "112 199 255"; // marks the user's choice, as rgb() takes it

const made = new Map();

/** Scales that the server names, by their anchors in hexadecimal. */
export const learn = (scales) => Object.assign(ANCHORS, scales);

/** 256 colours, [256 * 3] bytes. */
export function ramp(name) {
  if (!made.has(name)) {
    const anchors = ANCHORS[name].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    const colours = new Uint8Array(256 * 3);
    for (let i = 0; i < 256; i++) {
      const where = (i / 255) * (anchors.length - 1);
      const below = Math.min(Math.floor(where), anchors.length - 2);
      for (let c = 0; c < 3; c++) {
        colours[3 * i + c] = Math.round(anchors[below][c] + (where - below) * (anchors[below + 1][c] - anchors[below][c]));
      }
    }
    made.set(name, colours);
  }
  return made.get(name);
}

/** The light that a weight in [0, 1] lets through: medium weights stay visible, faint noise stays faint. */
export const light = (value) => Math.max(0, Math.min(1, value)) ** 0.65;

/** For a map without contrast, as the server marks it: neither dark nor light. */
export const EVEN = [72, 73, 78];

/** RGBA pixels as dark lead: grey, dim and a little blue. Changes them in place. */
export function leaden(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const grey = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2]; // ITU-R BT.601
    pixels[i] = 10 + 0.23 * grey;
    pixels[i + 1] = 12 + 0.245 * grey;
    pixels[i + 2] = 18 + 0.285 * grey;
  }
}

/** RGBA pixels as glass with the sun behind: more saturated and warmer; dark glass glows amber, so that lit black is visible too. */
export function glowing(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const grey = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    const glow = 0.3 * (1 - Math.max(pixels[i], pixels[i + 1], pixels[i + 2]) / 255) ** 2;
    for (let c = 0; c < 3; c++) {
      const full = SUN[c] * Math.max(0, Math.min(255, grey + 1.25 * (pixels[i + c] - grey)));
      pixels[i + c] = 255 - ((255 - full) * (255 - glow * AMBER[c])) / 255; // screened with the amber
    }
  }
}

/** RGBA pixels half-way to grey and a little darker, as the background of a heat map. Changes them in place. */
export function calm(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const grey = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    for (let c = 0; c < 3; c++) pixels[i + c] = 0.5 * pixels[i + c] + 0.375 * grey;
  }
}

/** RGBA [h * w * 4] of a map's values in [0, 1], to lay over the calmed picture. */
export function heated(values, strength = 0.72) {
  const colours = ramp("inferno");
  const out = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    const value = Math.max(0, Math.min(1, values[i]));
    const at = 3 * Math.round(255 * value);
    out.set(colours.subarray(at, at + 3), 4 * i);
    out[4 * i + 3] = 255 * strength * value ** 0.8;
  }
  return out;
}

/** RGBA [h * w * 4]: amber, its opacity the light that falls through. */
export function lit(values) {
  const out = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    out.set(AMBER, 4 * i);
    out[4 * i + 3] = 255 * light(values[i]);
  }
  return out;
}

/** RGBA [h * w * 4]: cool glass where a value is below 0 (evidence against), its opacity the size of the value; nothing elsewhere. */
export function against(values) {
  const out = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    out.set(COOL, 4 * i);
    out[4 * i + 3] = 190 * light(-values[i]);
  }
  return out;
}
