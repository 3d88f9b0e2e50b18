// Filter and sort the rows of the list.

const filters = document.getElementById("filters");
const OUTCOME_NAMES = {
  edit: "edit ran",
  non_edit: "no edit",
  corner: "limit hit",
  not_edited: "not edited by the coder",
  error: "error",
  invalid: "invalid",
  infrastructure: "infrastructure failure",
};
const sorting = { key: "order", descending: false };
let matches = null; // rows whose texts contain the query, if all texts are searched
let search = 0; // number of the latest search; older ones stop
let shown = []; // the filtered and sorted rows

const SORT_KEYS = {
  order: (row) => row,
  task: (row) => index.tasks[index.rows.task[row]].name,
  steps: (row) => index.rows.steps[row].length,
  failed: (row) => index.failed[row],
  score: (row) => index.rows.score[row],
  gain: (row) => index.rows.gain[row],
  end: (row) => index.ends[index.rows.end[row]],
};

function fillSelect(name, everything, options) {
  const select = filters.elements[name];
  select.append(new Option(everything, ""), ...options.map(([text, value]) => new Option(visible(text), value)));
  select.hidden = options.length < 2;
}

function fillFilters() {
  const count = (column) => {
    const counts = new Map();
    for (const value of column) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };
  const byName = (names, column) =>
    [...count(column)].map(([i, n]) => [`${names[i]} (${n})`, i]).sort((a, b) => a[0].localeCompare(b[0]));
  const { rows } = index;
  const groups = count(rows.group);
  fillSelect("group", "All groups", index.groups.map((name, i) => [`${name} (${groups.get(i) ?? 0})`, i]));
  fillSelect("task", "All tasks", byName(index.tasks.map((task) => task.name), rows.task));
  fillSelect("end", "Any end", byName(index.ends, rows.end));
  document.body.classList.toggle("one-end", index.ends.length < 2);
  const outcomes = count(rows.steps.flatMap((letters) => [...new Set([...letters].map((letter) => index.letters[letter]))]));
  const present = Object.keys(OUTCOME_NAMES).filter((name) => outcomes.has(name));
  fillSelect("outcome", "Any outcome", present.map((name) => [`has: ${OUTCOME_NAMES[name]} (${outcomes.get(name)})`, name]));
  filters.querySelector(".range").hidden = !rows.gain.some((gain) => gain !== null);
}

function applyFilters() {
  const { rows } = index;
  const value = (name) => filters.elements[name].value;
  const query = value("query").trim().toLowerCase();
  const letters = Object.keys(index.letters).filter((letter) => index.letters[letter] === value("outcome"));
  const bound = (name) => (value(name) === "" ? null : Number(value(name)));
  const [low, high] = [bound("low"), bound("high")];
  const is = (name, row) => value(name) === "" || rows[name][row] === Number(value(name));
  shown = [];
  for (let row = 0; row < index.count; row++) {
    const gain = rows.gain[row];
    const fits =
      is("group", row) &&
      is("task", row) &&
      is("end", row) &&
      (!letters.length || letters.some((letter) => rows.steps[row].includes(letter))) &&
      (low === null || (gain !== null && gain >= low)) &&
      (high === null || (gain !== null && gain <= high)) &&
      (!query || (matches ? matches[row] : index.searchable[row].includes(query)));
    if (fits) shown.push(row);
  }
  sortRows();
}

function sortRows() {
  const key = SORT_KEYS[sorting.key];
  const sign = sorting.descending ? -1 : 1;
  const values = new Map(shown.map((row) => [row, key(row)]));
  shown.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1; // rows without a value come last in both orders
    return x < y ? -sign : sign;
  });
}

// Search all texts if asked to, showing matches as they are found, and call `refresh`.
async function searchOrFilter(refresh) {
  const number = ++search;
  const query = filters.elements.query.value.trim().toLowerCase();
  if (!filters.elements.everywhere.checked || !query) {
    matches = null;
    refresh(1);
    return;
  }
  matches = new Uint8Array(index.count);
  refresh(0);
  await searchTexts(query, matches, () => number === search, refresh);
}
