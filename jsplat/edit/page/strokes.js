// What tools do to a layer: each returns the indices of pixels, row by row; nothing here knows the screen.

export const UNTOUCHED = 255;

// Pixels whose centre lies within `radius` of the segment a-b (in pixels, centres at .5).
export function line(a, b, radius, width, height) {
  const found = [];
  const reach = Math.max(radius, 0.5);
  const x0 = Math.max(0, Math.floor(Math.min(a.x, b.x) - reach)), x1 = Math.min(width - 1, Math.floor(Math.max(a.x, b.x) + reach));
  const y0 = Math.max(0, Math.floor(Math.min(a.y, b.y) - reach)), y1 = Math.min(height - 1, Math.floor(Math.max(a.y, b.y) + reach));
  const dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const ox = px - t * dx, oy = py - t * dy;
      if (ox * ox + oy * oy <= reach * reach) found.push(y * width + x);
    }
  }
  return found;
}

// The 4-connected region of one class around a pixel.
export function region(mask, start, width, height) {
  const wanted = mask[start], seen = new Uint8Array(mask.length), found = [start];
  seen[start] = 1;
  for (let i = 0; i < found.length; i++) {
    const at = found[i], x = at % width;
    for (const next of [x > 0 ? at - 1 : -1, x < width - 1 ? at + 1 : -1, at - width, at + width]) {
      if (next >= 0 && next < mask.length && !seen[next] && mask[next] === wanted) {
        seen[next] = 1;
        found.push(next);
      }
    }
  }
  return found;
}

// Pixels whose centre lies inside a polygon (even-odd rule).
export function inside(corners, width, height) {
  const found = [];
  for (let y = 0; y < height; y++) {
    const cuts = [], at = y + 0.5;
    corners.forEach((a, i) => {
      const b = corners[(i + 1) % corners.length];
      if (a.y <= at !== b.y <= at) cuts.push(a.x + ((at - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    cuts.sort((p, q) => p - q);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const last = Math.min(width - 1, Math.ceil(cuts[i + 1] - 0.5) - 1);
      for (let x = Math.max(0, Math.ceil(cuts[i] - 0.5)); x <= last; x++) found.push(y * width + x);
    }
  }
  return found;
}

// A layer that can be taken back step by step; a step holds what the pixels were before and after.
export class History {
  constructor(layer) {
    this.layer = layer;
    this.done = [];
    this.undone = [];
    this.open = null;
  }
  begin() { this.open = new Map(); }
  // Sets pixels within the open step; returns those that changed.
  set(pixels, value) {
    const changed = [];
    for (const at of pixels) {
      if (this.layer[at] === value) continue;
      if (!this.open.has(at)) this.open.set(at, this.layer[at]);
      this.layer[at] = value;
      changed.push(at);
    }
    return changed;
  }
  end() {
    const step = [...this.open].filter(([at, before]) => this.layer[at] !== before).map(([at, before]) => [at, before, this.layer[at]]);
    this.open = null;
    if (step.length) {
      this.done.push(step);
      this.undone = [];
    }
    return step.length > 0;
  }
  #move(from, to, which) {
    const step = from.pop();
    if (!step) return [];
    for (const part of step) this.layer[part[0]] = part[which];
    to.push(step);
    return step.map((part) => part[0]);
  }
  undo() { return this.#move(this.done, this.undone, 1); }
  redo() { return this.#move(this.undone, this.done, 2); }
}
