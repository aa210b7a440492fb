// A pane: a picture under a mask, zoomed and panned; pixels of the mask are redrawn one by one.

import { UNTOUCHED } from "./strokes.js";

export class Pane {
  constructor(canvas, colors) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.colors = colors;
    this.opacity = 0.55;
    this.fade = 1;
    this.hidden = false;
    this.zoom = 1;
    this.center = null;
    this.decorate = null;
    this.picture = document.createElement("canvas");
    this.overlay = document.createElement("canvas");
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(canvas);
  }
  resize() {
    const scale = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.max(1, Math.round(box.width * scale));
    this.canvas.height = Math.max(1, Math.round(box.height * scale));
    this.draw();
  }
  setSize(width, height) {
    if (this.width === width && this.height === height) return;
    [this.width, this.height] = [width, height];
    for (const part of [this.picture, this.overlay]) [part.width, part.height] = [width, height];
    this.pixels = new ImageData(width, height);
    this.fit();
  }
  fit() {
    this.zoom = 1;
    this.center = { x: this.width / 2, y: this.height / 2 };
  }
  setPicture(image) { this.picture.getContext("2d").putImageData(image, 0, 0); }
  // The whole mask: classes as they stand; what a person said is drawn stronger.
  setMask(auto, layer) {
    [this.auto, this.layer] = [auto, layer];
    for (let i = 0; i < auto.length; i++) this.#paint(i);
    this.overlay.getContext("2d").putImageData(this.pixels, 0, 0);
  }
  touch(changed) {
    if (!changed.length) return;
    let [x0, y0, x1, y1] = [this.width, this.height, 0, 0];
    for (const i of changed) {
      this.#paint(i);
      const x = i % this.width, y = (i - x) / this.width;
      [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
    }
    this.overlay.getContext("2d").putImageData(this.pixels, 0, 0, x0, y0, x1 - x0 + 1, y1 - y0 + 1);
  }
  #paint(i) {
    const said = this.layer !== null && this.layer[i] !== UNTOUCHED;
    const id = said ? this.layer[i] : this.auto[i];
    const [r, g, b] = this.colors[id] ?? [224, 224, 192];
    this.pixels.data.set([r, g, b, said ? 255 : id === 0 ? 0 : 190], 4 * i);
  }
  get scale() {
    return this.zoom * Math.min(this.canvas.width / this.width, this.canvas.height / this.height) * 0.96;
  }
  // From the page's coordinates to the picture's, and back.
  toPicture(x, y) {
    const box = this.canvas.getBoundingClientRect(), dpr = this.canvas.width / box.width;
    return {
      x: ((x - box.left) * dpr - this.canvas.width / 2) / this.scale + this.center.x,
      y: ((y - box.top) * dpr - this.canvas.height / 2) / this.scale + this.center.y,
    };
  }
  toPage(x, y) {
    const box = this.canvas.getBoundingClientRect(), dpr = this.canvas.width / box.width;
    return {
      x: box.left + ((x - this.center.x) * this.scale + this.canvas.width / 2) / dpr,
      y: box.top + ((y - this.center.y) * this.scale + this.canvas.height / 2) / dpr,
    };
  }
  zoomAt(x, y, factor) {
    const before = this.toPicture(x, y);
    this.zoom = Math.min(40, Math.max(1, this.zoom * factor));
    const after = this.toPicture(x, y);
    this.pan(before.x - after.x, before.y - after.y);
  }
  pan(dx, dy) {
    this.center.x = Math.min(this.width, Math.max(0, this.center.x + dx));
    this.center.y = Math.min(this.height, Math.max(0, this.center.y + dy));
    if (this.zoom === 1) this.center = { x: this.width / 2, y: this.height / 2 };
  }
  draw() {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.width) return;
    const scale = this.scale;
    context.setTransform(scale, 0, 0, scale, canvas.width / 2 - this.center.x * scale, canvas.height / 2 - this.center.y * scale);
    context.imageSmoothingEnabled = scale < 6;
    context.drawImage(this.picture, 0, 0);
    if (!this.hidden) {
      context.imageSmoothingEnabled = false;
      context.globalAlpha = this.opacity * this.fade;
      context.drawImage(this.overlay, 0, 0);
      context.globalAlpha = 1;
    }
    this.decorate?.(context, scale);
  }
}

// sRGB bytes to a picture.
export function fromRgb(bytes, width, height) {
  const image = new ImageData(width, height);
  for (let i = 0, j = 0; i < bytes.length; i += 3, j += 4) image.data.set([bytes[i], bytes[i + 1], bytes[i + 2], 255], j);
  return image;
}

// Doubt over the greyed photograph: dark where the labels are sure, from violet to yellow where they are not.
export function fromDoubt(photo, confidence) {
  const image = new ImageData(photo.width, photo.height);
  for (let i = 0, j = 0; i < confidence.length; i++, j += 4) {
    const grey = 0.25 * (0.3 * photo.data[j] + 0.6 * photo.data[j + 1] + 0.1 * photo.data[j + 2]);
    const doubt = 1 - confidence[i] / 255;
    const hot = [255 * Math.min(1, 0.35 + 1.1 * doubt), 255 * Math.max(0, 1.6 * doubt - 0.55), 255 * Math.max(0, 0.6 - doubt)];
    image.data.set([...hot.map((c) => grey + Math.min(1, 1.6 * doubt) * (c - grey)), 255], j);
  }
  return image;
}
