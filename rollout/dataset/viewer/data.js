// The data of the page: the index, and the chunks from which trajectories are read when they are opened.

const CACHED_CHUNKS = 6;
const chunks = new Map(); // number -> promise of its lines, least recently used first
let index = null;

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function textOf(id) {
  if (!document.getElementById(id) && document.readyState === "loading") {
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  }
  const packed = bytesOf(document.getElementById(id).textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

async function readIndex() {
  index = JSON.parse(await textOf("index"));
  const rows = index.rows;
  index.count = rows.id.length;
  index.failed = rows.steps.map((letters) => letters.replace(/[^VXUC]/g, "").length);
  // The text that a search looks at: id, task and ideas, in lower case.
  index.searchable = rows.id.map((id, row) =>
    [id, index.tasks[rows.task[row]].name, ...rows.ideas[row].map((idea) => index.ideas[idea])].join("\n").toLowerCase(),
  );
}

function chunkOf(row) {
  let low = 0;
  let high = index.chunks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (index.chunks[middle] <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}

// The lines of a chunk, one for each trajectory.
function linesOf(chunk) {
  const lines = chunks.get(chunk) ?? textOf(`chunk-${chunk}`).then((text) => text.split("\n"));
  chunks.delete(chunk);
  chunks.set(chunk, lines);
  if (chunks.size > CACHED_CHUNKS) chunks.delete(chunks.keys().next().value);
  return lines;
}

function named(names, values) {
  return Object.fromEntries(names.map((name, i) => [name, values[i]]));
}

async function readTrajectory(row) {
  const chunk = chunkOf(row);
  const line = (await linesOf(chunk))[row - index.chunks[chunk]];
  const trajectory = named(index.trajectory_columns, JSON.parse(line));
  trajectory.steps = trajectory.steps.map((step) => named(index.step_columns, step));
  return trajectory;
}

// Mark in `matches` the rows whose texts contain `query`; stop when `isCurrent()` becomes false. Lines are JSON, so the
// query is escaped as in JSON.
async function searchTexts(query, matches, isCurrent, progress) {
  const escaped = JSON.stringify(query).slice(1, -1).toLowerCase();
  for (let chunk = 0; chunk < index.chunks.length && isCurrent(); chunk++) {
    const text = await textOf(`chunk-${chunk}`);
    text.split("\n").forEach((line, i) => {
      if (line.toLowerCase().includes(escaped)) matches[index.chunks[chunk] + i] = 1;
    });
    if (isCurrent()) progress((chunk + 1) / index.chunks.length);
    await new Promise((done) => setTimeout(done));
  }
}
