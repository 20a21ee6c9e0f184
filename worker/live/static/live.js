// The live page: follows the worker's events, draws them, and sends typed requests.
// Everything from the worker is shown as text; nothing becomes markup.

import { Chart, el } from "./charts.js";

const HISTORY = 180, SAMPLES = 8, AGAIN_MS = 3000, SILENT_MS = 5000;
const RUNGS = [
  ["final", "final head"], ["confident", "confident head"], ["deadline", "deadline"], ["graph", "graph score"],
];
const by = (id) => document.getElementById(id);
const put = (id, text) => { by(id).textContent = text; };
const known = Number.isFinite;
const ms = (value) => (!known(value) ? "–" : value < 9.95 ? `${value.toFixed(1)} ms` : value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(0)} s`);
const percent = (share) => (!known(share) ? "–" : share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)} %`);
const rate = (value) => (known(value) ? value.toFixed(value < 9.95 ? 1 : 0) : "–");
const number = (value, digits = 2) => (known(value) ? value.toFixed(digits) : "–");

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

let worker = null, points = [], heardAt = 0, touched = false;
const charts = {};

// ── following the worker ──────────────────────────────────────────────────────────────────────────────────────────

function follow() {
  const events = new EventSource("/live/events");
  events.addEventListener("start", (event) => begin(JSON.parse(event.data)));
  events.addEventListener("second", (event) => second(JSON.parse(event.data)));
  events.onerror = async () => {
    if (events.readyState !== EventSource.CLOSED) return; // it connects again by itself
    state("bad", await whyNot());
    setTimeout(follow, AGAIN_MS);
  };
}

/** An event source does not tell why it was refused. */
async function whyNot() {
  const giveUp = new AbortController();
  try {
    const response = await fetch("/live/events", { signal: giveUp.signal });
    return response.ok ? "connecting again" : (await response.json()).error;
  } catch {
    return "no answer from the worker";
  } finally {
    giveUp.abort();
  }
}

function state(kind, text) {
  if (by("state").textContent === text) return; // said once, not every second
  by("state").className = `chip ${kind}`;
  put("state", text);
}

function begin(start) {
  worker = start;
  points = start.points.map(readable);
  heardAt = Date.now();
  put("group", `group ${start.group_id}`);
  put("model", `model ${start.model_version.slice(0, 12)}`);
  put("items-hint", `at most ${start.most_candidates}, separated by spaces or commas`);
  if (!touched) by("budget").value = start.budget_ms;
  by("samples").replaceChildren();
  start.samples.forEach(sample);
  draw();
}

/** JSON has no NaN: what is not known comes as null. */
function readable(point) {
  return Object.fromEntries(Object.entries(point).map(([name, value]) => [name, value ?? NaN]));
}

function second({ figures, outcomes: followed, not_ready: notReady, sample: shown }) {
  heardAt = Date.now();
  const reasons = Object.entries(notReady).map(([condition, reason]) => `${condition}: ${reason}`);
  state(reasons.length ? "bad" : "good", reasons.length ? `not ready (${reasons.join("; ")})` : "ready");
  points = [...points, readable(figures.point)].slice(-HISTORY);
  tiles(figures, points[points.length - 1]);
  exits(figures.exits);
  rungs(figures.made_by);
  outcomes(followed);
  draw();
  if (shown !== null) sample(shown);
}

setInterval(() => {
  if (worker && Date.now() - heardAt > SILENT_MS) {
    state("bad", `nothing heard for more than ${SILENT_MS / 1000} s`);
  }
}, 1000);

// ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────

function tiles(figures, point) {
  const { gauges } = figures;
  put("answered", `${figures.answered.toLocaleString("en")} answered`);
  put("rate", rate(point.requests_per_s));
  put("rate-note", `${rate(figures.candidates_per_s)} candidates/s`);
  unit("p50", ms(point.p50_ms));
  put("p50-note", "of the last 10 seconds");
  unit("p99", ms(point.p99_ms));
  const share = point.p99_ms / point.budget_ms;
  by("p99-meter").style.width = `${Math.min(100, 100 * (share || 0))}%`;
  by("p99-meter").className = share > 1 ? "bad" : "";
  put("p99-note", known(share) ? `${percent(share)} of a budget of ${ms(point.budget_ms)}` : "");
  unit("within", percent(figures.within_budget ?? NaN));
  by("within").className = figures.within_budget !== null && figures.within_budget < 0.99 ? "bad" : "";
  put("within-note", `${gauges.in_flight} in flight, ${gauges.waiting} waiting`);
  put("threshold", number(gauges.threshold, 3));
  const eased = worker.base_threshold - gauges.threshold;
  put("threshold-note", eased > 0.0005 ? `lowered from ${number(worker.base_threshold, 3)}` : "as calibrated: no load");
  unit("fresh", ms(figures.freshness_p50_ms ?? NaN));
  put("fresh-note", known(figures.freshness_p99_ms ?? NaN) ? `p99 ${ms(figures.freshness_p99_ms)}` : "no events in 10 s");
  put("lag", gauges.request_lag.toLocaleString("en"));
  put("lag-note", `requests; ${gauges.state_lag.toLocaleString("en")} states`);
}

/** The unit smaller than the number. */
function unit(id, text) {
  const [value, name] = text.split(" ");
  by(id).replaceChildren(value, ...(name ? [el("small", {}, name)] : []));
}

function exits(shares) {
  const layers = [0, ...worker.exit_layers];
  const deepest = worker.exit_layers[worker.exit_layers.length - 1];
  bars("exits", layers.map((layer) => [
    layer ? `layer ${layer}${layer === deepest ? " (all)" : ""}` : "graph only",
    shares[layer] ?? 0, layer ? (layer === deepest ? "final" : "confident") : "graph",
  ]));
}

function rungs(shares) {
  bars("rungs", RUNGS.map(([code, name]) => [name, shares[code] ?? 0, code]));
}

function bars(id, rows) {
  const list = by(id);
  while (list.children.length < rows.length) {
    list.append(el("li", {}, el("span", { class: "name" }),
      el("span", { class: "track", "aria-hidden": "true" }, el("span")), el("span", { class: "share" })));
  }
  rows.forEach(([name, share, series], place) => {
    const [label, track, value] = list.children[place].children;
    label.textContent = name;
    list.children[place].className = series;
    track.firstChild.style.width = `${100 * share}%`;
    value.textContent = percent(share);
  });
}

function outcomes({ quality, waiting, settled, expired, skipped }) {
  const isKnown = quality.bins.length > 0;
  put("auc", number(quality.auc ?? NaN, 3));
  put("auc-note", isKnown ? `of ${plural(quality.scores, "outcome")}`
    : quality.scores < worker.least_outcomes ? `${quality.scores} of ${plural(worker.least_outcomes, "outcome")}` : "all outcomes are the same");
  put("ratio", number(quality.calibration_ratio ?? NaN));
  put("ratio-note", isKnown ? `${percent(quality.predicted)} over ${percent(quality.observed)}` : "");
  const share = percent(settled / (settled + expired));
  put("outcomes-hint", `Scores are judged after ${worker.outcome_wait_s} s by what their user did with the item until then. ` +
    (settled + expired ? `${share} had an outcome; those without, not shown or not answered yet, say nothing of the score. ` : "") +
    `${waiting.toLocaleString("en")} waiting${skipped ? `, ${skipped.toLocaleString("en")} not followed` : ""}.`);
  by("outcomes").hidden = !isKnown;
  if (!isKnown) return;
  const most = Math.max(...quality.bins.flatMap((bin) => [bin.predicted, bin.observed]));
  by("bins").replaceChildren(...quality.bins.map((bin) => el("tr", {}, ...calibration(bin), plot(bin, most), count(bin))));
  const made = RUNGS.filter(([code]) => quality.made_by[code]);
  by("outcomes-by-rung").replaceChildren(...made.map(([code, name]) => {
    const rung = quality.made_by[code];
    return el("tr", {}, el("th", { scope: "row" }, name), ...calibration(rung), count(rung));
  }));
}

const calibration = ({ predicted, observed }) => [predicted, observed].map((share) => el("td", { class: "number" }, percent(share)));
const count = ({ scores }) => el("td", { class: "number" }, scores.toLocaleString("en"));

function plot({ predicted, observed }, most) {
  const bar = el("span", { class: "observed" }), mark = el("span", { class: "predicted" });
  bar.style.width = `${100 * observed / most}%`;
  mark.style.left = `${100 * predicted / most}%`;
  return el("td", { class: "plot", "aria-hidden": "true" }, el("div", {}, bar, mark));
}

function draw() {
  Object.values(charts).forEach((chart) => chart.show(points));
}

// ── last scores ───────────────────────────────────────────────────────────────────────────────────────────────────

let held = [];

function sample(answered) {
  const list = by("samples");
  if (isHeld()) {
    held = [...held, answered].slice(-SAMPLES);
    hint();
    return;
  }
  list.prepend(sampleEntry(answered));
  while (list.children.length > SAMPLES) list.lastChild.remove();
  if (!touched && !by("user").value) suggest(answered);
}

/** The list stands still while one is being read. */
function isHeld() {
  return by("hold").getAttribute("aria-pressed") === "true" || by("samples").querySelector("details[open]") !== null
    || by("samples").contains(document.activeElement);
}

function release() {
  if (isHeld()) return;
  const waiting = held;
  held = [];
  waiting.forEach(sample);
  hint();
}

function hint() {
  put("last-hint", held.length && isHeld()
    ? "The list stands still while it is held, or one is open or selected."
    : "One of the requests of each second. Open one to see its prompt and neighbours.");
}

function suggest(answered) {
  by("user").value = answered.user_id;
  by("items").value = answered.best.map((candidate) => candidate.words.item_id).join(" ");
}

function sampleEntry(answered) {
  const [first] = answered.best;
  const time = new Date(answered.scored_time_ms).toLocaleTimeString("en-GB");
  const summary = el("summary", {}, el("span", { class: "hint" }, time),
    el("span", { class: "title" }, first ? `${number(first.ctr, 3)}  ${name(first)}` : "no candidates"),
    first ? tag(first.made_by, first.exit_layer) : null,
    el("span", { class: answered.status === "late" ? "error" : "hint" },
      `${answered.status === "late" ? "late, " : ""}${ms(answered.latency_ms)} of ${ms(answered.budget_ms)}`));
  const inside = el("div", { class: "inside" },
    el("p", { class: "hint" }, `Request ${answered.request_id}: user ${answered.user_id} (${answered.user}), ` +
      `${plural(answered.candidates, "candidate")}, threshold ${number(answered.threshold, 3)}. The highest rates:`),
    ...answered.best.map((candidate) => el("div", { class: "result" },
      heading(candidate.ctr, name(candidate), candidate.made_by, candidate.exit_layer),
      candidate.made_by === "confident" ? el("p", { class: "hint" }, `confidence ${number(candidate.confidence)}`) : null,
      ...evidence(candidate.words))),
    answered.prompt ? prompt("prompt, shared by all candidates", answered.prompt) : null);
  const entry = el("details", {}, summary, inside);
  entry.addEventListener("toggle", release);
  return el("li", {}, entry);
}

const name = ({ words }) => words.title || words.item_id;

function tag(madeBy, layer) {
  const said = { final: `final, layer ${layer}`, confident: `confident at layer ${layer}`, deadline: `deadline at layer ${layer}`, graph: "graph score" };
  return el("span", { class: `tag ${madeBy}` }, said[madeBy] ?? madeBy);
}

function heading(ctr, title, madeBy, layer) {
  return el("h3", {}, el("span", { class: "ctr" }, number(ctr, 3)), title, " ", tag(madeBy, layer));
}

function evidence(words) {
  if (!words.prompt) return [el("p", { class: "hint" }, `answered from embeddings alone, without evidence and prompt; ${words.item_id} itself: ${words.record}`)];
  const rows = words.neighbours.map((near) => el("tr", {}, el("td", {}, el("span", { class: "hint" }, near.kind), " ", near.name),
    el("td", { class: "number" }, number(near.similarity)), el("td", {}, near.outcome)));
  return [
    el("div", { class: "scroll" }, el("table", {},
      el("caption", {}, `neighbours; ${words.item_id} itself: ${words.record}`),
      el("thead", {}, el("tr", {}, head("neighbour"), head("similarity", "number"), head("outcome"))),
      el("tbody", {}, ...rows))),
    prompt("prompt, its own part", words.prompt),
  ];
}

const head = (text, kind = "") => el("th", { scope: "col", class: kind }, text);

function prompt(what, text) {
  const pieces = text.split(/(⟨[^⟩]*⟩)/).map((piece) => (piece.startsWith("⟨") ? el("span", { class: "soft" }, piece) : piece));
  return el("p", { class: "prompt" }, el("span", { class: "hint" }, what), ...pieces);
}

by("hold").addEventListener("click", () => {
  const pressed = by("hold").getAttribute("aria-pressed") === "true";
  by("hold").setAttribute("aria-pressed", String(!pressed));
  release();
});
by("samples").addEventListener("focusout", () => setTimeout(release, 0));

// ── a typed request ───────────────────────────────────────────────────────────────────────────────────────────────

async function ask(event) {
  event.preventDefault();
  const button = by("form").querySelector("button");
  const body = {
    user_id: by("user").value.trim(),
    candidate_item_ids: by("items").value.split(/[\s,]+/).filter(Boolean),
    budget_ms: Number(by("budget").value),
  };
  button.disabled = true;
  try {
    const response = await fetch("/live/score", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const told = await response.json();
    by("answer").replaceChildren(...(response.ok ? typedAnswer(told) : [refusal(told.error)]));
  } catch {
    by("answer").replaceChildren(refusal("no answer from the worker"));
  } finally {
    button.disabled = false;
  }
}

const refusal = (text) => el("p", { class: "error" }, text);

function typedAnswer(told) {
  return [
    el("p", { class: "hint" }, `User ${told.user_id}: ${told.user}. All heads took ${ms(told.took_ms)}; ` +
      `threshold in force ${number(told.threshold, 3)}.`),
    ...told.candidates.map((candidate) => el("div", { class: "result" },
      heading(candidate.answer.ctr, name(candidate), candidate.answer.made_by, candidate.answer.layer),
      el("p", {}, `Why: ${candidate.answer.reason}.`),
      heads(candidate),
      el("details", {}, el("summary", {}, "Its neighbours and its prompt"),
        el("div", { class: "inside" }, ...evidence(candidate.words))))),
    prompt("prompt, shared by all candidates", told.prompt),
  ];
}

function heads({ answer, heads: asked, graph_ctr: graphCtr }) {
  const row = (layer, label, ctr, confidence, at) => el("tr", layer === answer.layer ? { class: `chosen ${answer.made_by}` } : {},
    el("th", { scope: "row", class: "short" }, label), el("td", { class: "number" }, number(ctr, 3)),
    el("td", { class: "number" }, confidence), el("td", { class: "number" }, at),
    el("td", {}, ...(layer === answer.layer ? ["✓", el("span", { class: "hidden" }, "answered")] : [])));
  return el("div", { class: "scroll" }, el("table", {},
    el("caption", {}, "what every head says"),
    el("thead", {}, el("tr", {}, head("by"), head("CTR", "number"), head("confidence", "number"), head("after", "number"), el("td", {}))),
    el("tbody", {}, row(0, "graph", graphCtr, "", ""),
      ...asked.map((one) => row(one.layer, `layer ${one.layer}`, one.ctr, number(one.confidence), ms(one.at_ms))))));
}

by("form").addEventListener("input", () => { touched = true; });
by("form").addEventListener("submit", ask);

// ── begin ─────────────────────────────────────────────────────────────────────────────────────────────────────────

charts.latency = new Chart(by("chart-latency"), {
  title: "Latency against budget", format: ms, least: 10,
  series: [
    { name: "budget", color: "muted", dashed: true, of: (point) => point.budget_ms },
    { name: "p99", color: "deadline", of: (point) => point.p99_ms },
    { name: "p50", color: "final", of: (point) => point.p50_ms },
  ],
});
charts.rate = new Chart(by("chart-rate"), {
  title: "Requests per second", format: rate, least: 1,
  series: [{ name: "answered", color: "confident", area: true, of: (point) => point.requests_per_s }],
});
charts.threshold = new Chart(by("chart-threshold"), {
  title: "Exit threshold in force", format: (value) => number(value, 2), least: 1,
  series: [
    { name: "without load", color: "muted", dashed: true, of: () => worker?.base_threshold ?? NaN },
    { name: "now", color: "graph", area: true, of: (point) => point.threshold },
  ],
});
follow();
