// Chart of the hidden metric over the steps, with the initial and the best score.

const CHART_HEIGHT = 132;
const BEYOND = 1; // limit of the chart past the initial and the best score, in units of their distance

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const child of children) element.append(child instanceof Node ? child : visible(child));
  return element;
}

const isNumber = (value) => typeof value === "number";

function chartRange(trajectory, task) {
  const first = trajectory.steps[0].before;
  const ends = [first, task.m_best].filter(isNumber);
  const values = [...ends, ...trajectory.steps.flatMap((step) => [step.after, step.metric])].filter(isNumber);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (ends.length === 2 && ends[0] !== ends[1]) {
    const distance = Math.abs(ends[1] - ends[0]);
    low = Math.max(low, Math.min(...ends) - BEYOND * distance);
    high = Math.min(high, Math.max(...ends) + BEYOND * distance);
  }
  const space = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - space, high + space];
}

function chart(trajectory, task, chosen, choose, width) {
  const steps = trajectory.steps;
  const [low, high] = chartRange(trajectory, task);
  const [left, right, top, bottom] = [8, 96, 8, 22];
  const slot = (width - left - right) / (steps.length + 1);
  const x = (position) => left + slot * (position + 0.5); // position 0 is the initial script
  const y = (value) => top + ((high - Math.min(Math.max(value, low), high)) / (high - low)) * (CHART_HEIGHT - top - bottom);
  const picture = svg("svg", { class: "chart", width, height: CHART_HEIGHT, role: "img", "aria-label": "The hidden metric over the steps" });
  picture.append(
    svg("rect", { class: "chosen", x: x(chosen + 1) - slot / 2, y: 0, width: slot, height: CHART_HEIGHT, rx: 4 }),
  );
  const levels = [["initial", steps[0].before], ["best", task.m_best]].filter(([, value]) => isNumber(value));
  const crowded = levels.length === 2 && Math.abs(y(levels[0][1]) - y(levels[1][1])) < 14;
  levels.forEach(([name, value], i) => {
    const away = crowded ? (y(levels[i][1]) <= y(levels[1 - i][1]) ? -7 : 7) : 0;
    picture.append(
      svg("line", { class: `level ${name}`, x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { class: `level ${name}`, x: width - right + 8, y: y(value) + 4 + away }, `${name} ${figure(value)}`),
    );
  });
  let path = `M${x(0)},${y(steps[0].before)}`;
  steps.forEach((step, i) => {
    if (isNumber(step.after)) path += `L${x(i + 1)},${y(step.after)}`;
  });
  picture.append(svg("path", { class: "metric", d: path }));
  picture.append(svg("circle", { class: "start", cx: x(0), cy: y(steps[0].before), r: 3 }));
  steps.forEach((step, i) => {
    const value = isNumber(step.metric) ? step.metric : step.after;
    const place = svg("g", { class: `place ${step.outcome}`, "data-step": i + 1 });
    const cut = value < low || value > high ? " (outside the chart)" : "";
    place.append(
      svg("title", {}, `step ${i + 1}: ${OUTCOME_NAMES[step.outcome]}${isNumber(step.metric) ? `, ${figure(step.metric)}${cut}` : ""}`),
      svg("rect", { class: "hit", x: x(i + 1) - slot / 2, y: 0, width: slot, height: CHART_HEIGHT }),
      isNumber(step.metric)
        ? svg("circle", { class: "dot", cx: x(i + 1), cy: y(value), r: 4.5 })
        : svg("circle", { class: "no-dot", cx: x(i + 1), cy: y(value), r: 2.5 }),
      svg("text", { class: "tick", x: x(i + 1), y: CHART_HEIGHT - 6 }, i + 1),
    );
    place.addEventListener("click", () => choose(i));
    picture.append(place);
  });
  return picture;
}
