// The open trajectory and step, navigation, and the address.

const ADDRESS_DELAY = 150; // milliseconds before the address is updated: browsers refuse many changes in a row
const current = { row: null, step: 0, trajectory: null };
let addressTimer = 0;

// `#id/step`, or `#group/id/step` if there are several groups, because an id may occur in each.
function hashOf(row, step) {
  const parts = [index.rows.id[row], String(step + 1)];
  if (index.groups.length > 1) parts.unshift(index.groups[index.rows.group[row]]);
  return `#${parts.map(encodeURIComponent).join("/")}`;
}

function fromHash() {
  let parts;
  try {
    parts = location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return null; // not an address of this page
  }
  const step = /^\d+$/.test(parts.at(-1)) && parts.length > 1 ? Number(parts.pop()) - 1 : 0;
  const id = parts.pop();
  const group = parts.length ? index.groups.indexOf(parts[0]) : -1;
  const fits = (row) => row >= 0 && index.rows.id[row] === id && (group < 0 || index.rows.group[row] === group);
  if (fits(current.row ?? -1)) return { row: current.row, step };
  const row = index.rows.id.findIndex((_, i) => fits(i));
  return row < 0 ? null : { row, step };
}

// A new trajectory adds an entry to the browser's history; a new step replaces the entry.
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const target = current.row === null ? "#" : hashOf(current.row, current.step);
    if ((location.hash || "#") === target) return;
    const before = fromHash();
    if (before !== null && before.row === current.row) history.replaceState(null, "", target);
    else history.pushState(null, "", target);
  }, ADDRESS_DELAY);
}

async function openRow(row, step = 0, write = true) {
  const changed = row !== current.row;
  current.row = row;
  document.body.classList.toggle("open", row !== null);
  if (row === null) {
    current.trajectory = null;
    drawOverview();
  } else {
    const trajectory = await readTrajectory(row);
    if (current.row !== row) return; // another one was opened in the meantime
    current.trajectory = trajectory;
    current.step = Math.min(Math.max(step, 0), Math.max(trajectory.steps.length - 1, 0));
    if (changed) detail.scrollTop = 0;
    drawTrajectory();
    scrollToRow(row, !write); // the row of an address may be far from the visible ones
  }
  drawRows();
  if (write) writeAddress();
}

function openStep(step) {
  if (!current.trajectory || step < 0 || step >= current.trajectory.steps.length || step === current.step) return;
  current.step = step;
  drawTrajectory();
  writeAddress();
}

function openNeighbour(by) {
  if (!shown.length) return;
  const place = current.row === null ? -1 : shown.indexOf(current.row);
  const next = place < 0 ? 0 : Math.min(Math.max(place + by, 0), shown.length - 1);
  if (shown[next] !== current.row) openRow(shown[next]);
}

function followAddress() {
  const target = fromHash();
  if (target === null) openRow(null, 0, false);
  else if (target.row !== current.row || target.step !== current.step) openRow(target.row, target.step, false);
}

const KEYS = {
  j: () => openNeighbour(1),
  ArrowDown: () => openNeighbour(1),
  k: () => openNeighbour(-1),
  ArrowUp: () => openNeighbour(-1),
  ArrowRight: () => openStep(current.step + 1),
  ArrowLeft: () => openStep(current.step - 1),
  "/": () => filters.elements.query.focus(),
  Escape: () => openRow(null),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function refreshList() {
  searchOrFilter((share) => {
    applyFilters();
    drawList(share);
    if (current.row === null) drawOverview();
  });
}

function listen() {
  let typing = 0;
  filters.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(refreshList, event.target.type === "search" ? 120 : 0);
  });
  filters.addEventListener("reset", () => setTimeout(refreshList));
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("columns").addEventListener("click", (event) => {
    const key = event.target.dataset.sort;
    if (!key) return;
    sorting.descending = sorting.key === key ? !sorting.descending : ["gain", "failed", "steps", "score"].includes(key);
    sorting.key = key;
    sortRows();
    list.scrollTop = 0;
    drawList();
  });
  rowsElement.addEventListener("click", (event) => {
    const element = event.target.closest("[data-row]");
    if (element) openRow(Number(element.dataset.row));
  });
  let drawing = false;
  list.addEventListener("scroll", () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      drawRows();
    });
  });
  new ResizeObserver(() => {
    drawRows();
    if (current.trajectory) drawChart();
  }).observe(document.body);
  document.addEventListener("keydown", onKey);
  addEventListener("popstate", followAddress);
  addEventListener("hashchange", followAddress);
}

async function start() {
  await readIndex();
  fillFilters();
  applyFilters();
  drawList();
  performance.mark("listed");
  listen();
  const target = fromHash();
  if (target) await openRow(target.row, target.step, false);
  else drawOverview();
}

start().catch((error) => {
  detail.replaceChildren(h("p.empty", null, `This page cannot be read (${error.message}). It needs a browser from 2023 or later.`));
});
