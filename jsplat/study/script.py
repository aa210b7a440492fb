"""What the raters' page looks like and does, as CSS and JavaScript text."""

STYLE = """
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#161614;--soft:#5c5b57;--line:#d9d8d2;--go:#2467c4}
@media(prefers-color-scheme:dark){:root{--page:#131312;--card:#1c1c1a;--ink:#f1f0ec;--soft:#aaa89f;--line:#3b3a36;
--go:#5b9df0}}
*{box-sizing:border-box}[hidden]{display:none!important}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px}
#intro,#end{max-width:68ch;margin:6vh auto}h1{font-size:28px;margin:0 0 12px}h2{font-size:19px;margin:14px 0}
p{margin:0 0 14px}.small,.legend{color:var(--soft);font-size:13.5px}
header{display:flex;gap:14px;align-items:center;color:var(--soft)}progress{flex:1;height:8px;accent-color:var(--go)}
#pictures{display:flex;gap:16px;justify-content:center}
figure{margin:0;flex:1 1 0;max-width:min(440px,50vh);text-align:center}
.stack{position:relative;border:3px solid transparent;border-radius:10px;overflow:hidden;line-height:0}
.stack.choice{cursor:pointer;border-color:var(--line)}.stack.choice:hover,.stack.given{border-color:var(--go)}
.stack img{width:100%;height:auto}.stack img+img{position:absolute;inset:0;height:100%;image-rendering:pixelated}
figcaption{color:var(--soft);font-size:14px;margin-top:6px}
#buttons{display:flex;gap:10px;justify-content:center;margin:14px 0;flex-wrap:wrap}
button{font:inherit;padding:9px 18px;border-radius:9px;border:1px solid var(--go);background:var(--go);color:#fff;
cursor:pointer}button.quiet,#buttons button{background:var(--card);color:var(--ink);border-color:var(--line)}
#buttons button:hover,#buttons button.given{border-color:var(--go);box-shadow:0 0 0 1px var(--go)}
button:focus-visible{outline:3px solid var(--go);outline-offset:2px}button:disabled{opacity:.4;cursor:default}
footer{display:flex;justify-content:space-between;align-items:center;gap:14px;color:var(--soft);font-size:14px}
input[type=range]{vertical-align:middle;accent-color:var(--go)}
kbd{border:1px solid var(--line);border-radius:5px;padding:1px 7px;background:var(--card);font:inherit}
.legend span{display:inline-block;margin:0 14px 4px 0}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px;border:1px solid var(--line)}
.legend{margin:14px 0 4px}.keys{line-height:2.1}#end p{margin:14px 0}
"""

SCRIPT = r"""
"use strict";
const {study, items} = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id), place = "study-" + study;
const RATINGS = ["1 bad", "2 poor", "3 fair", "4 good", "5 excellent"];
const CHOICES = [["left", "← Left is better"], ["same", "↓ No difference"], ["right", "Right is better →"]];
const PAUSE = 0.25;
let state = null, at = 0, since = 0;

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return {study, rater: Array.from(bytes, b => b.toString(16).padStart(2, "0")).join(""), answers: {}};
}
function keep() { try { localStorage.setItem(place, JSON.stringify(state)); } catch { $("unkept").hidden = false; } }
function restore() {
  try {
    const old = JSON.parse(localStorage.getItem(place));
    if (old && old.study === study && old.rater && old.answers) return old;
  } catch { $("unkept").hidden = false; }
  return fresh();
}
function show(name) { for (const id of ["intro", "ask", "end"]) $(id).hidden = id !== name; }
function image(source, alt) { const i = new Image(); i.src = source; i.alt = alt; i.draggable = false; return i; }
function figure(item, mask, caption, choice) {
  const f = document.createElement("figure"), s = document.createElement("div");
  const c = document.createElement("figcaption");
  s.className = "stack";
  s.append(image(item.photo, "photograph"));
  if (mask) { const layer = image(mask, caption); layer.className = "layer"; s.append(layer); }
  if (choice) {
    s.classList.add("choice");
    s.classList.toggle("given", state.answers[item.id]?.answer === choice);
    s.onclick = () => answer(choice);
  }
  c.textContent = caption;
  f.append(s, c);
  return f;
}
function fade() { for (const l of document.querySelectorAll(".layer")) l.style.opacity = $("strength").value / 100; }
function ask() {
  if (at >= items.length) { show("end"); return; }
  show("ask");
  const item = items[at], two = item.masks.length === 2, given = state.answers[item.id]?.answer;
  const question = two ? "Which mask fits the photograph better?" : "How well does this mask fit the photograph?";
  $("question").textContent = question;
  const photo = figure(item, null, "Photograph", null);
  $("pictures").replaceChildren(...(two
    ? [figure(item, item.masks[0], "Left mask", "left"), photo, figure(item, item.masks[1], "Right mask", "right")]
    : [photo, figure(item, item.masks[0], "Mask", null)]));
  const options = two ? CHOICES : RATINGS.map((text, i) => [i + 1, text]);
  $("buttons").replaceChildren(...options.map(([value, text]) => {
    const b = document.createElement("button");
    b.textContent = text;
    b.classList.toggle("given", given === value);
    b.onclick = () => answer(value);
    return b;
  }));
  $("count").textContent = `${at + 1} of ${items.length}`;
  $("bar").value = Object.keys(state.answers).length;
  $("back").disabled = at === 0;
  fade();
  since = performance.now();
}
function answer(value) {
  const seconds = Math.round(performance.now() - since) / 1000;
  if (seconds < PAUSE) return;  /* the second click of a double click answers nothing */
  state.answers[items[at].id] = {answer: value, seconds};
  keep();
  at += 1;
  ask();
}
function back() { if (at > 0) { at -= 1; ask(); } }
function bare(on) { for (const l of document.querySelectorAll(".layer")) l.style.visibility = on ? "hidden" : ""; }
function begin() {
  const open = items.findIndex(item => !(item.id in state.answers));
  at = open < 0 ? items.length : open;
  ask();
}
$("start").onclick = begin;
$("back").onclick = $("review").onclick = back;
$("strength").oninput = fade;
$("strength").onchange = () => $("strength").blur();
$("save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(state, null, 1)], {type: "application/json"}));
  link.download = `answers-${study}-${state.rater.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
$("again").onclick = () => {
  if (!confirm("Are the answers saved? They are forgotten here.")) return;
  state = fresh();
  keep();
  show("intro");
};
addEventListener("keydown", event => {
  if ($("ask").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") { event.preventDefault(); bare(true); return; }
  if (event.repeat || document.activeElement === $("strength")) return;
  const two = items[at].masks.length === 2;
  const choice = two ? {ArrowLeft: "left", ArrowDown: "same", ArrowRight: "right"}[event.key]
    : {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}[event.key];
  if (choice !== undefined) { event.preventDefault(); answer(choice); }
  else if (event.key === "Backspace") { event.preventDefault(); back(); }
});
addEventListener("keyup", event => { if (event.key === " ") { event.preventDefault(); bare(false); } });
state = restore();
if (Object.keys(state.answers).length) $("start").textContent = "Go on";
"""
