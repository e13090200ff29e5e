"use strict";
// One session for each tab: its id lives in sessionStorage, so that a reload finds it and another tab does not.
const $ = (id) => document.getElementById(id);
const KEY = "unseen-compass-session";
let session = "", state = null, model = null, page = 0, sample = 1536, safe = [null, null], comparison = null, pair = null;

class Refusal extends Error {}

async function call(path, body, method) {
  const options = body === undefined && !method ? {} :
    { method: method || "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) };
  const answer = await fetch("api/" + path, options);
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Refusal(content.error), { status: answer.status });
  return content;
}
const mine = (path, body, method) => call(`sessions/${session}${path}`, body, method);
const address = (path) => `api/sessions/${session}${path}`;

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function act(work) {
  return async (event) => {
    if (event && event.preventDefault) event.preventDefault();
    try { await work(event); } catch (error) {
      say(error instanceof Refusal ? error.message : `The server did not answer (${error.message}).`, true);
    }
  };
}

// An image that shows the answer to the last question only: one request at a time, the newest waits, older ones are dropped.
function liveImage(element) {
  let wanted = null, running = false, old = "", turn = 0;
  async function run() {
    running = true;
    while (wanted !== null) {
      const asked = wanted, now = turn;
      wanted = null;
      try {
        const answer = await fetch(asked);
        if (!answer.ok) { say((await answer.json()).error, true); continue; }
        const blob = await answer.blob();
        if (now !== turn) continue; // another session, or another direction, since
        const url = URL.createObjectURL(blob);
        element.src = url;
        element.dataset.shows = asked;
        if (old) URL.revokeObjectURL(old);
        old = url;
      } catch (error) { say(`The server did not answer (${error.message}).`, true); }
    }
    running = false;
  }
  return {
    show(url) { wanted = url; if (!running) run(); },
    forget() { turn += 1; wanted = null; element.removeAttribute("src"); delete element.dataset.shows; },
    outdate() { turn += 1; },
  };
}
const walk = liveImage($("walk")), live = liveImage($("image")), mixed = liveImage($("mixed")), pairImage = liveImage($("pair-image"));
let measuring = 0;

function cut(tile, url, index, count) {
  tile.style.backgroundImage = `url("${url}")`;
  tile.style.backgroundSize = `${count * 100}% 100%`;
  tile.style.backgroundPosition = count > 1 ? `${(index / (count - 1)) * 100}% 0` : "0 0";
}

const SIGNS = { "1": "+", "-1": "−" }, WORDS = { "1": "marked more", "-1": "marked less", "0": "not marked" };

function drawBoard() {
  const url = address(`/images.png?samples=${state.samples.join(",")}`);
  if ($("board").dataset.url !== url) {
    $("board").dataset.url = url;
    $("board").replaceChildren(...state.samples.map((number, k) => {
      const tile = document.createElement("button");
      tile.type = "button"; tile.className = "tile"; tile.draggable = true; tile.dataset.sample = number;
      tile.append(Object.assign(document.createElement("span"), { className: "badge" }));
      cut(tile, url, k, state.samples.length);
      return tile;
    }));
  }
  for (const tile of $("board").children) {
    const mark = String(state.marks[tile.dataset.sample] || 0);
    tile.dataset.mark = mark;
    tile.firstChild.textContent = SIGNS[mark] || "";
    tile.setAttribute("aria-label", `Image ${tile.dataset.sample}, ${WORDS[mark]}`);
  }
}

function drawTray(name) {
  const samples = state[name], tray = $(name);
  tray.querySelector(".count").textContent = samples.length;
  const url = samples.length ? address(`/images.png?samples=${samples.slice(-200).join(",")}`) : "";
  if (tray.dataset.url === url) return;
  tray.dataset.url = url;
  tray.querySelector(".thumbs").replaceChildren(...samples.slice(-200).map((number, k, all) => {
    const tile = document.createElement("button");
    tile.type = "button"; tile.className = "tile"; tile.dataset.sample = number;
    tile.title = "Take this mark back";
    tile.setAttribute("aria-label", `Image ${number}: take this mark back`);
    cut(tile, url, k, all.length);
    return tile;
  }));
}

function interval(reading, digits = 2) {
  const text = (x) => x.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−"); // no minus zero
  return text(reading.value) + (reading.low === null ? "" : ` [${text(reading.low)}, ${text(reading.high)}]`);
}
const percent = (x) => `${Math.round(x * 100)} %`;

function draw() {
  drawBoard();
  drawTray("more");
  drawTray("less");
  $("missing").replaceChildren(...state.missing.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  $("found").hidden = !state.fitted;
  for (const id of ["uncertain", "anchors"]) $(id).disabled = !state.fitted;
  $("fit").textContent = state.changed ? "Find direction again" : "Find direction";
  const blind = state.blind, compared = state.compared;
  $("accuracy").textContent = blind ? `Right in ${percent(blind.value)} of ${blind.n} (95 %: ${percent(blind.low)} to ${percent(blind.high)}; guessing: 50 %).` : "";
  $("compared").textContent = compared ? `Yours chosen in ${percent(compared.value)} of ${compared.n} (95 %: ${percent(compared.low)} to ${percent(compared.high)}; by chance ${percent(compared.chance)}).` : "";
  drawSaved();
}

function drawSaved() {
  const strengths = Object.fromEntries([...$("saved").querySelectorAll("input")].map((one) => [one.dataset.name, one.value]));
  const key = session + state.directions.join("\n");
  if ($("saved").dataset.key === key) return;
  $("saved").dataset.key = key;
  $("saved").replaceChildren(...state.directions.map((name, k) => {
    const item = document.createElement("li"), label = document.createElement("label"), range = document.createElement("input");
    const shown = document.createElement("output"), row = document.createElement("div");
    range.type = "range"; range.min = -8; range.max = 8; range.step = 0.1; range.value = strengths[name] || 0;
    range.dataset.name = name; range.id = `mix-${k}`;
    shown.textContent = range.value;
    range.addEventListener("input", () => { shown.textContent = range.value; mix(); });
    label.htmlFor = range.id;
    label.append(`${name}: strength `, shown);
    row.className = "row";
    const link = (text, file) => Object.assign(document.createElement("a"), {
      textContent: text, className: "button", href: address(`/directions/${encodeURIComponent(name)}/${file}`), download: "" });
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", act(async () => { state = await mine(`/directions/${encodeURIComponent(name)}`, {}, "DELETE"); draw(); mix(); }));
    row.append(link("Tensors", "direction.safetensors"), link("Card", "card.json"), link("Images", "strip.png"), remove);
    item.append(label, range, row);
    return item;
  }));
  $("mixed").hidden = !state.directions.length;
  if (state.directions.length) mix();
}

function mix() {
  const strengths = {};
  for (const one of $("saved").querySelectorAll("input")) strengths[one.dataset.name] = Number(one.value);
  if (!Object.keys(strengths).length) return;
  mixed.show(address(`/image.png?sample=${sample}&orthogonal=${Number($("orthogonal").checked)}&mix=${encodeURIComponent(JSON.stringify(strengths))}`));
}

async function mark(marks) {
  state = await mine("/marks", { marks });
  say(`${state.more.length} more, ${state.less.length} less.`);
  draw();
}
const markOf = (tile) => Number(tile.dataset.mark || 0);
const CYCLE = { "0": 1, "1": -1, "-1": 0 };

function showAlphas() {
  const outside = (x) => (safe[0] !== null && x < safe[0]) || (safe[1] !== null && x > safe[1]);
  $("alphas").style.gridTemplateColumns = `repeat(${model.walk.length}, 1fr)`;
  $("alphas").replaceChildren(...model.walk.map((x) => Object.assign(document.createElement("span"),
    { textContent: String(x).replace("-", "−") + (outside(x) ? " !" : ""), className: outside(x) ? "outside" : "" })));
  const x = Number($("strength").value);
  $("warning").textContent = outside(x) ? "Outside the safe range: images are unlike what the model makes." : "";
}

function slide() {
  $("alpha").textContent = Number($("strength").value).toFixed(1).replace("-", "−");
  showAlphas();
  live.show(address(`/image.png?sample=${sample}&fit=${state.fits}&mix=${encodeURIComponent(JSON.stringify({ current: Number($("strength").value) }))}`));
}

function showWalk() {
  walk.outdate(); live.outdate();
  walk.show(address(`/walk.png?page=${page}&fit=${state.fits}`));
  slide();
}

async function measure() {
  const turn = ++measuring;
  $("safe").textContent = "measuring …";
  const found = await mine("/measures");
  if (turn !== measuring) return;
  safe = found.safe_range;
  const end = (x) => (x === null ? "beyond ±8" : x.toFixed(1).replace("-", "−"));
  $("safe").textContent = `Safe range of strength: ${end(safe[0])} to ${end(safe[1])} (where images get twice as far from unedited ones; features: ${found.features}).`;
  $("effects").tBodies[0].replaceChildren(...found.effects.map((one) => {
    const line = document.createElement("tr");
    line.append(Object.assign(document.createElement("td"), { textContent: one.attribute }),
      Object.assign(document.createElement("td"), { textContent: interval(one), className: "number" }));
    return line;
  }));
  const test = found.marks_test;
  $("test").textContent = test === null ? "" :
    `Your ${test.n} marks against chance: cross-validated AUC ${test.auc.toFixed(2)}, permutation p ${test.p < 0.0051 ? "≤ 0.005" : "= " + test.p.toFixed(3)}.`;
  showAlphas();
}

const fit = act(async () => {
  state = await mine("/fit", {});
  pair = comparison = null;
  $("pair").hidden = $("rows").hidden = true;
  safe = [null, null];
  draw();
  showWalk();
  say(`Direction from ${state.more.length} more and ${state.less.length} less.`);
  await measure();
});

function begin(found) {
  session = found.session;
  state = found;
  sessionStorage.setItem(KEY, session);
  page = 0; sample = 1536; safe = [null, null]; pair = comparison = null; measuring += 1;
  for (const one of [walk, live, mixed, pairImage]) one.forget();
  for (const id of ["pair", "rows"]) $(id).hidden = true;
  $("strength").value = 0;
  $("effects").tBodies[0].replaceChildren();
  $("safe").textContent = $("test").textContent = "";
  $("layer").value = state.layer; $("seed").value = state.seed;
  $("download").href = address("/file");
  draw();
  if (state.fitted) { showWalk(); return measure(); }
}

// A duplicated tab starts with a copy of sessionStorage: the tab that has the session answers, and the copy begins its own.
const channel = "BroadcastChannel" in window ? new BroadcastChannel(KEY) : null;
if (channel) channel.onmessage = (message) => {
  if (message.data.asks && message.data.asks === session) channel.postMessage({ has: session });
};
function isTaken(name) {
  if (!channel) return Promise.resolve(false);
  return new Promise((resolve) => {
    const answer = (message) => { if (message.data.has === name) resolve(true); };
    channel.addEventListener("message", answer);
    channel.postMessage({ asks: name });
    setTimeout(() => { channel.removeEventListener("message", answer); resolve(false); }, 120);
  });
}

async function start() {
  model = await call("model");
  $("model").textContent = `${model.name} · ${model.latent_size} latents · ${model.licence ? model.licence + " · " : ""}SHA-256 ${model.sha256.slice(0, 12)}…`;
  $("measured").textContent = model.measured;
  $("layer").replaceChildren(new Option("the latent", ""), ...model.layers.map((name) => new Option(`layer ${name}`, name)));
  const before = sessionStorage.getItem(KEY);
  if (before && !(await isTaken(before))) {
    try {
      session = before;
      await begin({ session: before, ...(await mine("")) });
      say("Your session is as you left it.");
      return;
    } catch (error) { if (error.status !== 404) throw error; session = ""; }
  }
  await begin(await call("sessions", {}));
  say("Mark at least one image in each group, then find the direction.");
}

$("board").addEventListener("click", act(async (event) => {
  const tile = event.target.closest(".tile");
  if (tile) await mark({ [tile.dataset.sample]: CYCLE[markOf(tile)] });
}));
$("board").addEventListener("keydown", (event) => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const tiles = [...$("board").children], at = tiles.indexOf(tile);
  const columns = getComputedStyle($("board")).gridTemplateColumns.split(" ").length;
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const marks = { "+": 1, "=": 1, "-": -1, "−": -1, Delete: 0, Backspace: 0 };
  if (event.key in moves) {
    event.preventDefault();
    const to = tiles[at + moves[event.key]];
    if (to) to.focus();
  } else if (event.key in marks) {
    act(() => mark({ [tile.dataset.sample]: marks[event.key] }))(event);
  }
});
$("board").addEventListener("dragstart", (event) => {
  const tile = event.target.closest(".tile");
  if (tile) event.dataTransfer.setData("text/plain", tile.dataset.sample);
});
for (const name of ["more", "less"]) {
  const tray = $(name);
  tray.addEventListener("dragover", (event) => { event.preventDefault(); tray.classList.add("over"); });
  tray.addEventListener("dragleave", () => tray.classList.remove("over"));
  tray.addEventListener("drop", act(async (event) => {
    tray.classList.remove("over");
    const number = event.dataTransfer.getData("text/plain");
    if (/^\d+$/.test(number)) await mark({ [number]: Number(tray.dataset.mark) });
  }));
  tray.addEventListener("click", act(async (event) => {
    const tile = event.target.closest(".tile");
    if (tile) await mark({ [tile.dataset.sample]: 0 });
  }));
}
$("fit").addEventListener("click", fit);
$("undo").addEventListener("click", act(async () => { state = await mine("/undo", {}); draw(); say("The last mark is taken back."); }));
for (const kind of ["random", "uncertain"])
  $(kind).addEventListener("click", act(async () => {
    state = await mine("/board", { kind });
    draw();
    say(kind === "uncertain" ? "Half of these are the images about which the direction says least, half are random." : "A random board.");
  }));
$("strength").addEventListener("input", slide);
$("next").addEventListener("click", () => { sample = 1536 + ((sample - 1536 + 1) % 512); slide(); mix(); });
$("anchors").addEventListener("click", () => { page += 1; showWalk(); });
$("orthogonal").addEventListener("change", mix);
$("save").addEventListener("submit", act(async () => {
  state = await mine("/directions", { name: $("name").value.trim() });
  say(`Saved as ${$("name").value.trim()}.`);
  $("name").value = "";
  draw();
}));
$("ask").addEventListener("click", act(async () => {
  pair = (await mine("/pairs", {})).pair;
  pairImage.forget();
  pairImage.show(address(`/pairs/${pair}/pair.png`));
  $("pair").hidden = false;
  for (const side of ["left", "right"]) $(side).disabled = false;
}));
for (const side of ["left", "right"])
  $(side).addEventListener("click", act(async () => {
    for (const one of ["left", "right"]) $(one).disabled = true;
    const found = await mine(`/pairs/${pair}`, { more: side });
    state = found;
    say(found.agrees ? "The direction agrees with you." : "The direction means the other one.");
    draw();
  }));
$("compare").addEventListener("click", act(async () => {
  const asked = await mine("/comparisons", {});
  comparison = asked.comparison;
  const url = address(`/comparisons/${comparison}/rows.png`), number = comparison;
  $("rows").replaceChildren(...Array.from({ length: asked.rows }, (_, k) => {
    const letter = "ABCDEFGH"[k];
    const choose = Object.assign(document.createElement("button"), { type: "button", textContent: letter });
    choose.setAttribute("aria-label", `Row ${letter} does it best`);
    const strip = document.createElement("div");
    strip.className = "tile strip";
    strip.style.aspectRatio = model.walk.length * model.image[2] / model.image[1];
    strip.style.backgroundImage = `url("${url}")`;
    strip.style.backgroundSize = `100% ${asked.rows * 100}%`;
    strip.style.backgroundPosition = `0 ${asked.rows > 1 ? (k / (asked.rows - 1)) * 100 : 0}%`;
    strip.setAttribute("role", "img");
    strip.setAttribute("aria-label", `Row ${letter}: one image along a direction that is not named`);
    choose.addEventListener("click", act(async () => {
      const found = await mine(`/comparisons/${number}`, { row: k });
      state = found;
      say(`Rows were: ${found.order.map((kind, at) => `${"ABCDEFGH"[at]} ${kind}`).join(", ")}.`);
      for (const one of $("rows").querySelectorAll("button")) one.disabled = true;
      draw();
    }));
    return [choose, strip];
  }).flat());
  $("rows").hidden = false;
}));
async function newSession() {
  await begin(await call("sessions", { layer: $("layer").value, seed: Number($("seed").value) }));
  say("A new session. Mark at least one image in each group.");
}
$("new").addEventListener("click", act(newSession));
$("layer").addEventListener("change", act(newSession));
$("open").addEventListener("change", act(async () => {
  const file = $("open").files[0];
  $("open").value = "";
  if (!file) return;
  let content;
  try { content = JSON.parse(await file.text()); } catch { throw new Refusal("This file is no session."); }
  await begin(await call("sessions/open", content));
  say("The session is open.");
}));
act(start)();
