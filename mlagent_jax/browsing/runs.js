"use strict";
// Shows the runs, and the figures of the chosen ones over one another. Asks the server for what is new every two seconds.

const POLL_MS = 2000, MAX_CHOSEN = 8, MAX_CHARTS = 40;
const DEFAULT = ["reward/mean", "reward/repeated_share", "ppo/kl_to_sft", "ppo/entropy", "ppo/explained_variance", "sft/loss", "sft/validation_loss", "time/total_seconds"];
const element = (id) => document.getElementById(id);

let runs = [];
const chosen = new Map(); // name of a run -> its color, a number
const series = new Map(); // run and figure -> {version, next, x, seconds, y}
const charts = new Map(); // figure -> {section, chart}
let names = new Map(); // run -> names of its figures

async function ask(what, query = {}) {
  const answer = await fetch(`/api/${what}?${new URLSearchParams(query)}`);
  return answer.ok ? answer.json() : null;
}

function choose(name, wanted) {
  if (!wanted) { chosen.delete(name); return; }
  const taken = new Set(chosen.values());
  const color = [...Array(MAX_CHOSEN).keys()].find((each) => !taken.has(each));
  if (color !== undefined) chosen.set(name, color);
}

function cell(row, text, kind = "") {
  const made = row.insertCell();
  made.textContent = text;
  made.className = kind;
  return made;
}

function showRuns() {
  const body = element("runs").tBodies[0], focused = document.activeElement?.dataset?.run;
  body.replaceChildren();
  for (const run of runs) {
    const row = body.insertRow(), first = cell(row, "");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: chosen.has(run.name) });
    box.dataset.run = run.name;
    box.setAttribute("aria-label", `show ${run.name}`);
    box.disabled = !box.checked && chosen.size >= MAX_CHOSEN;
    box.addEventListener("change", () => { choose(run.name, box.checked); showRuns(); update(); });
    const swatch = document.createElement("span");
    swatch.className = `swatch ${chosen.has(run.name) ? `c${chosen.get(run.name)}` : ""}`;
    first.append(box, swatch);
    if (run.name === focused) box.focus({ preventScroll: true });
    cell(row, run.name, "name");
    cell(row, run.state, run.state);
    cell(row, `${run.stage} ${run.progress}`.trim());
    cell(row, run.reward === null ? "" : signed(run.reward), "number");
    for (const split of ["held_in", "held_out"]) {
      const gain = run.gains[`ppo/${split}`] ?? run.gains[`sft/${split}`];
      cell(row, gain === undefined ? "" : signed(gain), "number");
    }
    cell(row, ago(run.changed));
    const pages = cell(row, "", "pages");
    for (const page of run.pages) {
      const link = document.createElement("a");
      link.href = `/page?${new URLSearchParams({ run: run.name, name: page })}`;
      link.textContent = page.replace(".html", "");
      pages.append(link);
    }
  }
}

function signed(value) { return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`; }

function ago(seconds) {
  const minutes = Math.max(0, Date.now() / 1000 - seconds) / 60;
  if (minutes < 1) return "now";
  return minutes < 60 ? `${Math.floor(minutes)} min ago` : minutes < 2880 ? `${Math.floor(minutes / 60)} h ago` : `${Math.floor(minutes / 1440)} days ago`;
}

function wantedFigures() {
  const all = [...new Set([...chosen.keys()].flatMap((run) => names.get(run) ?? []))];
  const filter = element("filter").value.trim().toLowerCase();
  if (!filter) return DEFAULT.filter((name) => all.includes(name));
  return all.filter((name) => filter.split(/\s+/).every((part) => name.toLowerCase().includes(part))).sort().slice(0, MAX_CHARTS);
}

async function bring(run, name) {
  const key = `${run}\n${name}`;
  const have = series.get(key) ?? { version: 0, next: 0, x: [], seconds: [], y: [] };
  const answer = await ask("points", { run, name, version: have.version, from: have.next });
  if (answer === null) return;
  if (answer.is_new) Object.assign(have, { x: [], seconds: [], y: [] });
  for (const part of ["x", "seconds", "y"]) for (const value of answer[part]) have[part].push(value);
  Object.assign(have, { version: answer.version, next: answer.next });
  series.set(key, have);
}

function chartOf(name) {
  if (!charts.has(name)) {
    const section = document.createElement("section"), title = document.createElement("h2");
    const canvas = document.createElement("canvas"), reading = document.createElement("div");
    title.textContent = name;
    reading.className = "reading";
    section.append(title, canvas, reading);
    charts.set(name, { section, chart: new Chart(canvas, reading) });
  }
  return charts.get(name);
}

function smoothed(values) {
  if (!element("smooth").checked) return values;
  let mean = values[0];
  return values.map((value) => (mean = 0.9 * mean + 0.1 * value));
}

function draw(figures) {
  const axis = element("axis").value;
  for (const name of figures) {
    const lines = [...chosen].map(([run, color]) => {
      const have = series.get(`${run}\n${name}`) ?? { x: [], seconds: [], y: [] };
      const x = axis === "x" ? have.x : have.seconds.map((each) => each / 60);
      return { name: run, color: `--c${color}`, x, y: smoothed(have.y) };
    });
    chartOf(name).chart.show(lines);
  }
}

let updating = null;
async function update() {
  if (updating) { updating = "again"; return; } // one at a time: answers must not overtake one another
  updating = "now";
  try {
    const found = await Promise.all([...chosen.keys()].map(async (run) => [run, Object.keys((await ask("names", { run })) ?? {})]));
    names = new Map(found);
    const figures = wantedFigures();
    element("charts").replaceChildren(...figures.map((name) => chartOf(name).section));
    element("empty").hidden = figures.length > 0;
    element("empty").textContent = chosen.size ? "No figure of the chosen runs has this name." : "Choose a run.";
    await Promise.all(figures.flatMap((name) => [...chosen.keys()].filter((run) => names.get(run).includes(name)).map((run) => bring(run, name))));
    draw(figures);
  } finally {
    const again = updating === "again";
    updating = null;
    if (again) update();
  }
}

let isFirst = true;
async function poll() {
  try {
    runs = (await ask("runs")) ?? [];
    if (isFirst && runs.length) { choose(runs[0].name, true); isFirst = false; }
    element("status").textContent = runs.length ? `${runs.length} run${runs.length > 1 ? "s" : ""}; the page follows them` : "There is no run yet";
    showRuns();
    await update();
  } catch (error) {
    element("status").textContent = "The server does not answer; start mlagent runs serve again";
  }
  setTimeout(poll, POLL_MS);
}

for (const id of ["filter", "axis", "smooth"]) element(id).addEventListener("input", update);
element("controls").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("resize", () => charts.forEach(({ chart }) => chart.draw()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(({ chart }) => chart.draw()));
poll();
