// The page: what is open, what the hands do, and what the server is told.

import { Pane, fromDoubt, fromRgb } from "./canvas.js";
import { History, UNTOUCHED, inside, line, region } from "./strokes.js";

const $ = (id) => document.getElementById(id);
const IDLE = 30; // seconds without a move after which time does not count
const state = { run: null, head: 0, view: 0, beside: null, tool: "brush", chosen: 1, base: "photo", latencies: [], saving: null, changed: {} };
let main, other;

async function get(path) {
  const answer = await fetch(`api/${path}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}
const bytes = async (path) => new Uint8Array(await (await get(path)).arrayBuffer());
const head = () => state.run.heads[state.head];

function toast(text, error = false) {
  Object.assign($("toast"), { textContent: text, hidden: false, className: error ? "error" : "" });
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").hidden = true), error ? 8000 : 4500);
}
// What goes on, by kind; the latest is shown. No text: that kind is over.
const going = new Map();
function say(kind, text) {
  going.delete(kind);
  if (text) going.set(kind, text);
  $("state").textContent = [...going.values()].at(-1) ?? "";
  $("state").classList.toggle("busy", going.size > 0);
}
const guarded = (action) => (...args) =>
  new Promise((done) => done(action(...args))).catch((error) => toast(error.message, true));

// ---- what is shown

async function labels(path, count) {
  const answer = await get(path), data = new Uint8Array(await answer.arrayBuffer());
  const [auto, layer, sure] = [0, 1, 2].map((i) => data.slice(i * count, (i + 1) * count));
  return { auto, layer, sure, revision: Number(answer.headers.get("X-Revision")) };
}

async function open(which, view) {
  if (isDirty()) await save();
  const about = state.run.heads[which], count = about.height * about.width;
  const path = `${which}/${view}`;
  const [photo, found] = await Promise.all([bytes(`${path}/photo`), labels(`${path}/labels`, count)]);
  Object.assign(state, { head: which, view, ...found, seconds: 0, corners: [], render: null, changed: which === state.head ? state.changed : {} });
  state.photo = fromRgb(photo, about.width, about.height);
  state.history = new History(state.layer);
  state.saved = state.layer.slice();
  main.setSize(about.width, about.height);
  main.fit();
  main.setMask(state.auto, state.layer);
  await showBase();
  $("heads").value = which;
  $("where").textContent = `${view + 1} / ${about.yaw.length}`;
  $("caption").textContent = `${about.name}, yaw ${about.yaw[view].toFixed(0)}°, pitch ${about.pitch[view].toFixed(0)}°`;
  refresh();
  showQueue();
  await openBeside(about.near[view].includes(state.beside) ? state.beside : about.near[view][0]);
  guarded(warm)(which);
}

async function openBeside(view) {
  const about = head();
  state.beside = view;
  const [photo, found] = await Promise.all([
    bytes(`${state.head}/${view}/photo`), labels(`${state.head}/${view}/labels`, about.height * about.width)]);
  other.setSize(about.width, about.height);
  other.setPicture(fromRgb(photo, about.width, about.height));
  other.setMask(found.auto, found.layer);
  other.draw();
  const moved = state.changed[view] ? `, ${state.changed[view]} px changed` : "";
  $("beside-caption").textContent = `yaw ${about.yaw[view].toFixed(0)}°, pitch ${about.pitch[view].toFixed(0)}°${moved}`;
  $("neighbors").replaceChildren(...about.near[state.view].map((near, i) => {
    const button = document.createElement("button");
    Object.assign(button, { textContent: i + 1, title: `Neighbour: yaw ${about.yaw[near].toFixed(0)}°`, onclick: guarded(() => openBeside(near)) });
    button.classList.toggle("on", near === view);
    if (state.changed[near] > state.run.changed) button.dataset.changed = "";
    return button;
  }));
}

async function showBase() {
  const about = head();
  if (state.base === "render" && !state.render) {
    say("render", "Rendering");
    const picture = await bytes(`${state.head}/${state.view}/render`).finally(() => say("render"));
    state.render = fromRgb(picture, about.width, about.height);
  }
  main.fade = state.base === "confidence" ? 0.35 : 1; // doubt has colours of its own
  main.setPicture(state.base === "render" ? state.render : state.base === "confidence" ? fromDoubt(state.photo, state.sure) : state.photo);
  main.draw();
  for (const button of document.querySelectorAll("[data-base]")) button.classList.toggle("on", button.dataset.base === state.base);
}
function setBase(base) {
  state.base = base;
  return showBase();
}

// Asks for the head until it can be voted on, so that the first save does not wait.
async function warm(which) {
  while (state.head === which) {
    const { ready } = await (await get(`${which}`)).json();
    say("warm", ready ? "" : "Preparing the geometry");
    if (ready) return;
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function refresh() {
  $("undo").disabled = !state.history.done.length;
  $("redo").disabled = !state.history.undone.length;
  $("revert").disabled = !state.layer.some((id) => id !== UNTOUCHED);
  $("save").disabled = !isDirty() || state.saving !== null;
  $("zoom").textContent = `${Math.round(100 * main.zoom)} %`;
}

function showQueue() {
  const { heads, queue } = state.run, read = heads.filter((h) => h.yaw);
  const all = read.reduce((n, h) => n + h.yaw.length, 0), done = heads.reduce((n, h) => n + h.edited.length, 0);
  $("bar").style.width = `${all ? (100 * done) / all : 0}%`;
  const unread = heads.filter((h) => !h.yaw && !h.error).length;
  const waiting = unread ? `, reading ${unread} more head${unread === 1 ? "" : "s"}` : "";
  $("progress-text").textContent = `${done} of ${all} views edited${waiting}`;
  const most = queue.length ? queue[0][2] : 1;
  $("queue").replaceChildren(...queue.slice(0, 60).map(([which, view, gain]) => {
    const item = document.createElement("li"), name = document.createElement("b"), pose = document.createElement("span"), meter = document.createElement("meter");
    name.textContent = heads[which].name;
    pose.className = "pose";
    pose.textContent = `${heads[which].yaw[view].toFixed(0)}° ${heads[which].pitch[view].toFixed(0)}°`;
    Object.assign(meter, { value: gain / most, title: `expected gain ${gain.toFixed(1)}` });
    item.classList.toggle("chosen", which === state.head && view === state.view);
    item.tabIndex = 0;
    item.append(name, pose, meter);
    item.onclick = guarded(() => open(which, view));
    item.onkeydown = (event) => event.key === "Enter" && item.onclick();
    return item;
  }));
}

async function readRun() {
  state.run = await (await get("run")).json();
  const options = state.run.heads.map((h, i) => Object.assign(document.createElement("option"), { value: i, textContent: h.name, disabled: !h.yaw }));
  $("heads").replaceChildren(...options);
  $("heads").value = state.head;
}

// ---- saving

function isDirty() {
  return state.layer !== undefined && state.layer.some((id, i) => id !== state.saved[i]);
}

function save(revision = state.revision) {
  if (!state.saving) state.saving = send(revision).finally(() => ((state.saving = null), say("save"), refresh()));
  return state.saving;
}

async function send(revision) {
  const [which, view, sent] = [state.head, state.view, state.layer.slice()];
  say("save", "Saving and voting");
  refresh();
  const answer = await fetch(`api/${which}/${view}/labels`, {
    method: "POST", body: sent, headers: { "X-Revision": revision, "X-Seconds": state.seconds.toFixed(1) },
  });
  if (answer.status === 409) {
    $("conflict").showModal();
    throw new Error("Saved in another window in the meantime");
  }
  if (!answer.ok) throw new Error(await answer.text());
  const done = await answer.json();
  const found = await labels(`${which}/${view}/labels`, sent.length);
  Object.assign(state, { saved: sent, auto: found.auto, sure: found.sure, revision: revision + 1, seconds: 0, changed: done.changed });
  main.setMask(state.auto, state.layer);
  await showBase();
  toast(`${done.pixels} pixels said; ${done.others} other view${done.others === 1 ? "" : "s"} changed, in ${done.revote_seconds.toFixed(1)} s`);
  await readRun();
  showQueue();
  await openBeside(state.beside);
}

async function nextInQueue() {
  const [before, view] = [state.head, state.view];
  if (isDirty()) await save();
  const found = state.run.queue.find(([h, v]) => h !== before || v !== view);
  if (found) await open(found[0], found[1]);
  else toast("Nothing is left in the queue");
}

// ---- hands

function act(pixels, value) {
  state.history.begin();
  const changed = state.history.set(pixels, value);
  state.history.end();
  main.touch(changed);
  main.draw();
  refresh();
}
function step(changed) {
  main.touch(changed);
  main.draw();
  refresh();
}
const composite = () => state.auto.map((id, i) => (state.layer[i] === UNTOUCHED ? id : state.layer[i]));
const value = () => (state.tool === "eraser" ? UNTOUCHED : state.chosen);
const radius = () => Number($("size").value) / 2;

function choose(id) {
  if (id < 0 || id >= state.run.labelset.names.length) return;
  state.chosen = id;
  for (const item of $("classes").children) item.classList.toggle("chosen", Number(item.dataset.id) === id);
  if (state.tool === "eraser") setTool("brush");
}
function setTool(tool) {
  state.tool = tool;
  state.corners = [];
  for (const button of document.querySelectorAll("[data-tool]")) button.classList.toggle("on", button.dataset.tool === tool);
  main.draw();
}
function closePolygon() {
  if (state.corners.length > 2) {
    const pixels = inside(state.corners, main.width, main.height);
    state.corners = [];
    act(pixels, state.chosen);
  }
  state.corners = [];
  main.draw();
}

const hand = { at: null, last: null, panning: false, space: false };
function pixelAt(at) {
  const [x, y] = [Math.floor(at.x), Math.floor(at.y)];
  return x >= 0 && y >= 0 && x < main.width && y < main.height ? y * main.width + x : -1;
}
function measured(event) {
  const took = performance.now() - event.timeStamp; // from the hand's move to the picture drawn
  state.latencies.push(took);
  $("latency").textContent = `stroke ${took.toFixed(0)} ms`;
}

function down(event) {
  if (!state.history || state.saving) return;
  main.canvas.focus();
  main.canvas.setPointerCapture(event.pointerId);
  const at = main.toPicture(event.clientX, event.clientY), pixel = pixelAt(at);
  if (event.button === 1 || hand.space) hand.panning = true;
  else if (event.button !== 0) return;
  else if (event.altKey) pixel >= 0 && choose(composite()[pixel]);
  else if (state.tool === "polygon") {
    const first = state.corners[0] && main.toPage(state.corners[0].x, state.corners[0].y);
    if (first && Math.hypot(first.x - event.clientX, first.y - event.clientY) < 9 && state.corners.length > 2) closePolygon();
    else state.corners.push(at);
    main.draw();
  } else if (state.tool === "fill") {
    if (pixel >= 0) act(region(composite(), pixel, main.width, main.height), state.chosen);
    measured(event);
  } else {
    state.history.begin();
    paint(at, at);
    measured(event);
  }
  hand.last = at;
}
function paint(from, to) {
  main.touch(state.history.set(line(from, to, radius(), main.width, main.height), value()));
  main.draw();
}
function move(event) {
  if (!state.history) return;
  const at = main.toPicture(event.clientX, event.clientY), pixel = pixelAt(at);
  hand.at = at;
  tick();
  if (hand.panning) {
    main.pan(hand.last.x - at.x, hand.last.y - at.y);
    hand.last = main.toPicture(event.clientX, event.clientY);
  } else if (state.history.open) {
    for (const part of event.getCoalescedEvents?.() ?? [event]) {
      const to = main.toPicture(part.clientX, part.clientY);
      main.touch(state.history.set(line(hand.last, to, radius(), main.width, main.height), value()));
      hand.last = to;
    }
  }
  main.draw();
  if (state.history.open) measured(event);
  if (pixel >= 0) {
    const said = state.layer[pixel] !== UNTOUCHED, id = said ? state.layer[pixel] : state.auto[pixel];
    $("pixel").textContent = `${pixel % main.width}, ${Math.floor(pixel / main.width)}  ${state.run.labelset.names[id] ?? "ignored"}${said ? " (said)" : ""}  ${Math.round(state.sure[pixel] / 2.55)} % sure`;
  }
}
function up() {
  hand.panning = false;
  if (state.history?.open) {
    state.history.end();
    refresh();
  }
}
// Counts the seconds a person works on this view.
function tick() {
  const now = performance.now() / 1000;
  if (tick.last !== undefined && now - tick.last < IDLE) state.seconds += now - tick.last;
  tick.last = now;
}

function decorate(context, scale) {
  context.lineWidth = 1.5 / scale;
  const trace = (path, dashed) => {
    for (const [color, dash] of [["#000a", []], ["#fff", dashed ? [4 / scale, 4 / scale] : []]]) {
      context.strokeStyle = color;
      context.setLineDash(dash);
      context.stroke(path);
    }
    context.setLineDash([]);
  };
  if (state.corners?.length) {
    const path = new Path2D();
    state.corners.forEach((p, i) => (i ? path.lineTo(p.x, p.y) : path.moveTo(p.x, p.y)));
    if (hand.at) path.lineTo(hand.at.x, hand.at.y);
    trace(path, true);
    for (const p of state.corners) {
      const dot = new Path2D();
      dot.arc(p.x, p.y, 4 / scale, 0, 7);
      context.fillStyle = "#fff";
      context.fill(dot);
    }
  } else if (hand.at && (state.tool === "brush" || state.tool === "eraser")) {
    const ring = new Path2D();
    ring.arc(hand.at.x, hand.at.y, Math.max(0.5, radius()), 0, 7);
    trace(ring, state.tool === "eraser");
  }
}

const KEYS = {
  b: () => setTool("brush"), e: () => setTool("eraser"), f: () => setTool("fill"), p: () => setTool("polygon"),
  s: () => isDirty() && save(), n: nextInQueue, v: () => setBase(state.base === "photo" ? "render" : "photo"),
  c: () => setBase(state.base === "confidence" ? "photo" : "confidence"), "?": () => $("help").showModal(),
  "[": () => resize(-2), "]": () => resize(2), Enter: closePolygon, Escape: () => ((state.corners = []), main.draw()),
  ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), h: () => hide(true), " ": () => lift(true),
};
function resize(by) {
  $("size").value = Number($("size").value) + by;
  $("size").oninput();
}
function turn(by) {
  const count = head().yaw.length;
  return open(state.head, (state.view + by + count) % count);
}
function hide(on) {
  main.hidden = other.hidden = on;
  main.draw();
  other.draw();
}
function lift(on) {
  hand.space = on;
  main.canvas.classList.toggle("panning", on);
}
function key(event) {
  if (document.querySelector("dialog[open]") || !state.history) return;
  tick();
  const command = event.ctrlKey || event.metaKey;
  if (command && "zyZs".includes(event.key)) {
    event.preventDefault();
    if (event.key === "s") guarded(() => isDirty() && save())();
    else if (!state.saving) step(event.key === "z" ? state.history.undo() : state.history.redo());
    return;
  }
  if (command || event.altKey || ["SELECT"].includes(event.target.tagName)) return;
  const digit = /^Digit(\d)$/.exec(event.code);
  if (event.code === "Numpad0") main.fit(), main.draw(), refresh();
  else if (digit) choose(Number(digit[1]) + (event.shiftKey ? 10 : 0));
  else {
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (event.target.tagName === "INPUT" && event.key.startsWith("Arrow"))) return;
    if (["BUTTON", "LI"].includes(event.target.tagName) && ["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    guarded(action)();
  }
}

function listClasses() {
  const { names, colors } = state.run.labelset;
  $("classes").replaceChildren(...names.map((name, id) => {
    const item = document.createElement("li"), chip = document.createElement("i"), text = document.createElement("span"), hint = document.createElement("kbd");
    chip.style.background = `rgb(${colors[id]})`;
    text.textContent = name;
    hint.textContent = id < 10 ? id : id < 20 ? `⇧${id - 10}` : "";
    item.dataset.id = id;
    item.append(chip, text, hint);
    item.onclick = () => choose(id);
    return item;
  }));
}

function listen() {
  const canvas = main.canvas;
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, up);
  canvas.addEventListener("pointerleave", () => ((hand.at = null), main.draw()));
  canvas.addEventListener("dblclick", () => state.tool === "polygon" && closePolygon());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    main.zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
    main.draw();
    refresh();
  }, { passive: false });
  addEventListener("keydown", key);
  addEventListener("keyup", (event) => (event.key === " " ? lift(false) : event.key.toLowerCase() === "h" && hide(false)));
  addEventListener("beforeunload", (event) => isDirty() && event.preventDefault());
  for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => setTool(button.dataset.tool);
  for (const button of document.querySelectorAll("[data-base]")) button.onclick = guarded(() => setBase(button.dataset.base));
  $("opacity").oninput = () => {
    main.opacity = other.opacity = Number($("opacity").value) / 100;
    main.draw();
    other.draw();
  };
  $("size").oninput = () => (($("size-text").textContent = `${$("size").value} px`), main.draw());
  $("heads").onchange = guarded(() => open(Number($("heads").value), 0));
  $("previous").onclick = guarded(() => turn(-1));
  $("next").onclick = guarded(() => turn(1));
  $("undo").onclick = () => step(state.history.undo());
  $("redo").onclick = () => step(state.history.redo());
  $("revert").onclick = () => act([...state.layer.keys()], UNTOUCHED);
  $("save").onclick = guarded(() => save());
  $("help-button").onclick = () => $("help").showModal();
  $("theme").onclick = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
    root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  };
  $("theirs").onclick = guarded(async () => {
    $("conflict").close();
    state.saved = state.layer;
    await open(state.head, state.view);
  });
  $("mine").onclick = guarded(async () => {
    $("conflict").close();
    const { revision } = await labels(`${state.head}/${state.view}/labels`, state.layer.length);
    await save(revision);
  });
}

async function start() {
  say("start", "Reading the run");
  await readRun();
  while (!state.run.heads.some((h) => h.yaw)) {
    if (state.run.heads.every((h) => h.error)) throw new Error(state.run.heads[0]?.error ?? "No heads in this run");
    await new Promise((done) => setTimeout(done, 300));
    await readRun();
  }
  say("start");
  main = new Pane($("canvas"), state.run.labelset.colors);
  other = new Pane($("beside"), state.run.labelset.colors);
  main.decorate = decorate;
  listClasses();
  listen();
  choose(1);
  $("size").oninput();
  main.resize();
  other.resize();
  const [which, view] = state.run.queue[0] ?? [state.run.heads.findIndex((h) => h.yaw), 0];
  await open(which, view);
  window.jsplat = { state, main, other };
  while (state.run.heads.some((h) => !h.yaw && !h.error)) {
    await new Promise((done) => setTimeout(done, 2000));
    await readRun();
    showQueue();
  }
  const failed = state.run.heads.filter((h) => h.error);
  if (failed.length) toast(failed.map((h) => `${h.name}: ${h.error}`).join("\n"), true);
}
guarded(start)();
