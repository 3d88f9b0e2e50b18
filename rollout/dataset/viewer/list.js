// The list of trajectories. Only visible rows are elements of the page.

const ROW_HEIGHT = 52;
const MARGIN_ROWS = 8; // above and below the visible rows
const list = document.getElementById("list");
const rowsElement = document.getElementById("rows");
const summary = document.getElementById("summary");
const COLUMNS = [
  ["order", "№", "in the order they were recorded"],
  ["task", "Task", "by the task's name"],
  ["end", "End", "by how they ended"],
  ["steps", "Steps", "by the number of steps"],
  ["failed", "Failed", "by the number of steps that were invalid, failed, not edited or hit a limit"],
  ["score", "Score", "by the hidden score of the last submission"],
  ["gain", "Gain", "by (score − initial) / (best − initial)"],
];

// Replace characters that are invisible or change how others look by visible ones.
function visible(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\p{Cf}\u007f-\u009f\u2028\u2029]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
}

// Create an element: `h("p.note", {title: "…"}, "text", child, …)`. Strings become text nodes.
function h(kind, attributes, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : visible(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false && child !== "") {
      element.append(child instanceof Node ? child : visible(child));
    }
  }
  return element;
}

function signed(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value; // nan, inf
  if (!tone(value)) return "0.000";
  const text = Math.abs(value) >= 1000 ? value.toExponential(1) : value.toFixed(3);
  return (value > 0 ? `+${text}` : text).replace("-", "−");
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  return (size >= 1e6 || (size && size < 1e-3) ? value.toExponential(3) : value.toFixed(4)).replace("-", "−");
}

function tone(value) {
  if (typeof value !== "number" || Math.abs(value) < 5e-4) return "";
  return value > 0 ? "up" : "down";
}

const plain = (name) => name.replaceAll("_", " ");

function strip(letters) {
  const counts = {};
  for (const letter of letters) counts[index.letters[letter]] = (counts[index.letters[letter]] ?? 0) + 1;
  const title = Object.entries(counts).map(([name, n]) => `${n} ${OUTCOME_NAMES[name]}`).join(", ");
  return h("span.strip", { title }, [...letters].map((letter) => h(`i.${letter === "e" ? "edit.flat" : index.letters[letter]}`)));
}

function rowElement(place) {
  const row = shown[place];
  const { rows } = index;
  const gain = rows.gain[row];
  const several = index.groups.length > 1;
  const ideas = rows.ideas[row].map((idea) => index.ideas[idea]).join(" · ");
  const element = h(
    "div.row",
    { role: "option", id: `row-${row}`, "aria-selected": String(row === current.row), "data-row": row },
    h("span.number", null, row + 1),
    h("span.task", null, plain(index.tasks[rows.task[row]].name)),
    h("span.end", null, plain(index.ends[rows.end[row]])),
    strip(rows.steps[row]),
    h("span.failed", null, index.failed[row] || ""),
    h("span.score", null, figure(rows.score[row])),
    h(`span.gain.${tone(gain) || "even"}`, null, signed(gain)),
    h("span.ideas", null, several && h("b.group", null, index.groups[rows.group[row]]), h("span.id", null, rows.id[row]), ideas && h("span", null, ideas)),
  );
  element.style.top = `${place * ROW_HEIGHT}px`;
  return element;
}

function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - MARGIN_ROWS);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + MARGIN_ROWS);
  const elements = [];
  for (let place = first; place < last; place++) elements.push(rowElement(place));
  rowsElement.replaceChildren(...elements);
  if (current.row !== null) list.setAttribute("aria-activedescendant", `row-${current.row}`);
  else list.removeAttribute("aria-activedescendant");
}

function drawColumns() {
  const buttons = COLUMNS.map(([key, name, title]) => {
    const on = sorting.key === key;
    const arrow = on ? (sorting.descending ? " ↓" : " ↑") : "";
    return h(`button.${key}`, { type: "button", title: `Sort ${title}`, "data-sort": key, "aria-pressed": String(on) }, name + arrow);
  });
  document.getElementById("columns").replaceChildren(...buttons);
}

function drawSummary(share) {
  const gains = shown.map((row) => index.rows.gain[row]).filter((gain) => gain !== null);
  const steps = shown.reduce((sum, row) => sum + index.rows.steps[row].length, 0);
  const number = (n) => n.toLocaleString("en");
  const parts = [h("b", null, number(shown.length)), ` of ${number(index.count)} trajectories`];
  if (gains.length) parts.push(" · mean gain ", h("b", null, signed(gains.reduce((a, b) => a + b) / gains.length)));
  if (shown.length) parts.push(` · ${(steps / shown.length).toFixed(1)} steps each`);
  if (share < 1) parts.push(` · searching ${Math.round(100 * share)} %`);
  summary.replaceChildren(h("span.title", null, index.title), h("span", null, parts));
}

function drawList(share = 1) {
  rowsElement.style.height = `${shown.length * ROW_HEIGHT}px`;
  list.classList.toggle("none", !shown.length);
  drawColumns();
  drawRows();
  drawSummary(share);
}

function scrollToRow(row, centered = false) {
  const place = shown.indexOf(row);
  if (place < 0) return;
  const top = place * ROW_HEIGHT;
  if (centered) list.scrollTop = top - (list.clientHeight - ROW_HEIGHT) / 2;
  else if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
}
