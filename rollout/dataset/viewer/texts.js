// The texts of a step, colored if their form is known.

function diffLine(line) {
  const kind = /^(\+\+\+|---) /.test(line) ? "file" : line.startsWith("@@") ? "hunk" : line[0] === "+" ? "added" : line[0] === "-" ? "removed" : "";
  return h(`span.line${kind && `.${kind}`}`, null, line || " ");
}

function diffBlock(text) {
  return h("pre.diff", null, text.split("\n").map(diffLine));
}

// The feedback line by line. The removed and added lines of an edit follow `Saved NAME:`, then the script's output.
function feedbackBlock(step) {
  const lines = step.feedback.split("\n");
  let inEdit = false;
  let afterCut = false;
  let inError = false;
  const elements = lines.map((line, i) => {
    if (i === 0 && /^Saved \S+:$/.test(line)) {
      inEdit = true;
      return h("span.line.status", null, line);
    }
    const isCut = /^\[\d+ characters cut\]$/.test(line);
    if (inEdit && (isCut || afterCut || line[0] === "+" || line[0] === "-")) {
      const partial = afterCut;
      afterCut = isCut;
      return isCut || (partial && !/^[+-]/.test(line)) ? h("span.line.status", null, line) : diffLine(line);
    }
    inEdit = false;
    if (i === lines.length - 1 && line.startsWith("Best so far: ")) return h("span.line.status", null, line);
    if (/^(Error|Stopped|Invalid response): /.test(line)) inError = true;
    if (inError) return h("span.line.fault", null, line || " ");
    if (/^validation [\w ]+: /.test(line)) return h("span.line.validation", null, line);
    return h("span.line", null, line || " ");
  });
  return h("pre.feedback", null, elements);
}

// The six fields of a response; the arguments of its action as a table.
function responseBlock(step) {
  if (step.fields === null) {
    return h("div", null, h("p.fault", null, step.invalid), h("pre.raw", null, step.response || "(nothing)"));
  }
  const [reflection, status, facts, thought, action, input] = step.fields;
  const items = [["Reflection", reflection], ["Plan and status", status], ["Fact check", facts], ["Thought", thought]];
  const names = Object.entries(step.arguments);
  return h(
    "div",
    null,
    step.invalid !== null && h("p.fault", null, step.invalid),
    h("dl", null, items.flatMap(([name, text]) => [h("dt", null, name), h("dd", null, text || "–")])),
    h(
      "div.action",
      null,
      h("p", null, h("span.label", null, "Action"), h("b", null, action || "–")),
      step.invalid === null
        ? h("table", null, names.map(([name, text]) => h("tr", null, h("th", null, plain(name)), h("td", null, text))))
        : h("pre.raw", null, input),
    ),
    h(`details.raw`, { open: step.invalid !== null }, h("summary", null, "Raw response"), h("pre.raw", null, step.response)),
  );
}
