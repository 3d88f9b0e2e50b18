// One trajectory: its problem, its progress, and one of its steps.

const detail = document.getElementById("detail");

function fact(name, value, kind = "") {
  return h("div.fact", null, h("span", null, name), h(`b${kind && `.${kind}`}`, null, value));
}

function headOf(trajectory, row) {
  const task = index.tasks[index.rows.task[row]];
  const gain = index.rows.gain[row];
  const first = trajectory.steps[0];
  const [project, train, test, script] = trajectory.names;
  const arrow = task.direction ? ` ${task.direction === "maximize" ? "↑" : "↓"}` : "";
  return h(
    "div.head",
    null,
    h(
      "div.title",
      null,
      h("button.back", { type: "button", onclick: () => openRow(null) }, "← List"),
      h("h1", null, plain(trajectory.task)),
      index.groups.length > 1 && h("span.badge", null, index.groups[index.rows.group[row]]),
      h("span.badge", null, plain(trajectory.end)),
      h("a.id", { href: hashOf(row, current.step), title: "Permalink to this step" }, trajectory.id),
    ),
    h(
      "div.facts",
      null,
      gain !== null && fact("Gain", signed(gain), tone(gain)),
      fact(`Score${task.metric ? `, ${plain(task.metric)}${arrow}` : ""}`, figure(index.rows.score[row])),
      fact("Initial", figure(task.m_init ?? first?.before)),
      task.m_best !== undefined && fact("Best known", figure(task.m_best)),
      fact("Seconds", index.rows.seconds[row]),
      fact("Seed", trajectory.seed),
    ),
    trajectory.ideas.length > 0 && h("div.given", null, h("h2", null, "Ideas to try"), h("ol", null, trajectory.ideas.map((idea) => h("li", null, idea)))),
    h(
      "details.given",
      { open: problemOpen, ontoggle: (event) => (problemOpen = event.target.open) },
      h("summary", null, "Problem and names"),
      h("pre.text", null, trajectory.problem),
      h("table", null, [["project", project], ["training data", train], ["test data", test], ["script", script]].map(([name, text]) => h("tr", null, h("th", null, name), h("td", null, text)))),
    ),
  );
}

let problemOpen = false; // kept from one trajectory to the next

function stepTabs(trajectory) {
  return h(
    "div.steps",
    { role: "tablist", "aria-label": "Steps" },
    trajectory.steps.map((step, i) =>
      h(
        `button.step.${step.outcome}`,
        { type: "button", role: "tab", "aria-selected": String(i === current.step), "data-step": i + 1, title: `${step.action || "not an action"}: ${OUTCOME_NAMES[step.outcome]}`, onclick: () => openStep(i) },
        h("i"),
        `${i + 1} `,
        h("span", null, step.action.split(" ")[0].toLowerCase() || "not an action"),
      ),
    ),
  );
}

function stepPanel(trajectory, i) {
  const step = trajectory.steps[i];
  const moved = isNumber(step.before) && isNumber(step.after) && step.before !== step.after;
  return h(
    "section.panel",
    { role: "tabpanel", "aria-label": `Step ${i + 1}` },
    h(
      "div.facts",
      null,
      fact(`Step ${i + 1} of ${trajectory.steps.length}`, OUTCOME_NAMES[step.outcome], `outcome.${step.outcome}`),
      fact("Hidden score", moved ? `${figure(step.before)} → ${figure(step.after)}` : `${figure(step.after)}, unchanged`),
      isNumber(step.metric) && !moved && fact("Score of this run", figure(step.metric)),
      step.validation !== null && fact("Validation", figure(step.validation)),
      step.reward !== null && fact("Reward", signed(step.reward), `reward.${tone(step.reward) || "even"}`),
      fact("Seconds", step.seconds),
    ),
    h("p.case", null, step.case),
    h("h2", null, "Response"),
    responseBlock(step),
    h("h2", null, "Feedback"),
    feedbackBlock(step),
    step.diff && h("details.whole", { open: editOpen, ontoggle: (event) => (editOpen = event.target.open) }, h("summary", null, "Whole diff"), diffBlock(step.diff)),
  );
}

let editOpen = false; // kept from one step to the next

function drawChart() {
  const place = detail.querySelector(".chart-place");
  if (!place) return;
  const task = index.tasks[index.rows.task[current.row]];
  place.replaceChildren(chart(current.trajectory, task, current.step, openStep, Math.max(place.clientWidth, 240)));
}

function drawTrajectory() {
  const { trajectory, row, step } = current;
  const top = detail.scrollTop;
  if (!trajectory.steps.length) {
    detail.replaceChildren(headOf(trajectory, row), h("p.empty", null, "This trajectory has no steps."));
    return;
  }
  detail.replaceChildren(headOf(trajectory, row), h("div.track", null, h("div.chart-place"), stepTabs(trajectory)), stepPanel(trajectory, step));
  drawChart();
  detail.scrollTop = top;
  detail.querySelector("button.step[aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

const LEGEND = { non_edit: "no edit", corner: "limit hit", not_edited: "not edited", error: "error", invalid: "invalid" };
const ORDER = "EeNCUXVF"; // order of the outcomes in a bar

// The overview if no trajectory is open: the shown rows by group and task.
function drawOverview() {
  const { rows } = index;
  const cells = new Map();
  for (const row of shown) {
    const key = `${rows.group[row]}/${rows.task[row]}`;
    if (!cells.has(key)) cells.set(key, { group: rows.group[row], task: rows.task[row], count: 0, gains: [], letters: "" });
    const cell = cells.get(key);
    cell.count++;
    cell.letters += rows.steps[row];
    if (rows.gain[row] !== null) cell.gains.push(rows.gain[row]);
  }
  const several = index.groups.length > 1;
  const sorted = [...cells.values()].sort((a, b) => a.group - b.group || index.tasks[a.task].name.localeCompare(index.tasks[b.task].name));
  const lines = sorted.map((cell) => {
    const gain = cell.gains.length ? cell.gains.reduce((a, b) => a + b) / cell.gains.length : null;
    const choose = () => {
      filters.elements.group.value = several ? cell.group : "";
      filters.elements.task.value = index.tasks.length > 1 ? cell.task : "";
      refreshList();
    };
    return h(
      "tr",
      null,
      several && h("td", null, index.groups[cell.group]),
      h("td", null, h("button.link", { type: "button", title: "Show only these", onclick: choose }, plain(index.tasks[cell.task].name))),
      h("td.n", null, cell.count.toLocaleString("en")),
      h(`td.n.${tone(gain) || "even"}`, null, signed(gain)),
      h("td.shares", null, shares(cell.letters)),
    );
  });
  const head = h("tr", null, several && h("th", null, "Group"), h("th", null, "Task"), h("th.n", null, "Trajectories"), h("th.n", null, "Mean gain"), h("th", null, "Outcomes of steps"));
  detail.replaceChildren(
    h("h1", null, visible(index.title)),
    h("p.note", null, "Gain is (score − initial) / (best − initial) of the last submission on hidden labels: 0 is the initial script, 1 is the best known score. Select a trajectory in the list, or press j."),
    h("div.scroll", null, h("table.overview", null, head, lines)),
    h("p.legend", null, Object.entries({ edit: "edit ran, better", flat: "edit ran, not better", ...LEGEND }).map(([name, title]) => h("span", null, h(`i.${name}`), title))),
  );
}

// A bar of the outcomes of steps; edits that ran without improving the score are paler.
function shares(letters) {
  const bar = h("span.bar");
  for (const [letter, name] of Object.entries(index.letters).sort((a, b) => ORDER.indexOf(a[0]) - ORDER.indexOf(b[0]))) {
    const count = letters.split(letter).length - 1;
    if (!count) continue;
    const better = letter === "e" ? ", not better" : "";
    const part = h(`i.${letter === "e" ? "flat" : name}`, { title: `${OUTCOME_NAMES[name]}${better}: ${Math.round((100 * count) / letters.length)} %` });
    part.style.flexGrow = count;
    bar.append(part);
  }
  return bar;
}
