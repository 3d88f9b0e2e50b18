"use strict";
// A line chart on a canvas. It draws at most four points in a column of pixels: the first, the lowest, the highest and the
// last. So ten thousand points take no longer than some hundreds.

const MARGIN = { left: 56, right: 12, top: 10, bottom: 24 };

class Chart {
  constructor(canvas, reading) {
    this.canvas = canvas;
    this.reading = reading;
    this.lines = [];
    canvas.addEventListener("mousemove", (event) => this.read(event.offsetX));
    canvas.addEventListener("mouseleave", () => { this.reading.textContent = ""; this.draw(); });
  }

  // Each line is {name, color, x, y}: numbers, x from the smallest to the largest.
  show(lines) {
    this.lines = lines.filter((line) => line.x.length);
    this.draw();
  }

  draw(marked = null) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!this.lines.length) return;
    this.scale(width, height);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = color("--muted");
    pen.strokeStyle = color("--line");
    pen.lineWidth = 1;
    for (const value of ticks(this.low, this.high, 5)) {
      const y = this.placeY(value);
      stroke(pen, [[MARGIN.left, y], [width - MARGIN.right, y]]);
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(numberText(value), MARGIN.left - 6, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const value of ticks(this.first, this.last, 6)) pen.fillText(numberText(value), this.placeX(value), height - 18);
    pen.lineWidth = 1.6;
    for (const line of this.lines) {
      pen.strokeStyle = color(line.color);
      const places = this.thin(line);
      if (places.length === 1) { pen.fillStyle = pen.strokeStyle; pen.fillRect(places[0][0] - 2, places[0][1] - 2, 4, 4); }
      else stroke(pen, places);
    }
    if (marked !== null) { pen.strokeStyle = color("--muted"); pen.lineWidth = 1; stroke(pen, [[marked, MARGIN.top], [marked, height - MARGIN.bottom]]); }
  }

  scale(width, height) {
    this.first = Infinity; this.last = -Infinity; this.low = Infinity; this.high = -Infinity;
    for (const { x, y } of this.lines) {
      this.first = Math.min(this.first, x[0]);
      this.last = Math.max(this.last, x[x.length - 1]);
      for (const value of y) { if (value < this.low) this.low = value; if (value > this.high) this.high = value; }
    }
    if (this.last === this.first) { this.first -= 0.5; this.last += 0.5; }
    const room = (this.high - this.low) * 0.05 || Math.abs(this.high) * 0.05 || 0.5;
    this.low -= room; this.high += room;
    const inner = width - MARGIN.left - MARGIN.right, tall = height - MARGIN.top - MARGIN.bottom;
    this.placeX = (value) => MARGIN.left + (value - this.first) / (this.last - this.first) * inner;
    this.placeY = (value) => MARGIN.top + (this.high - value) / (this.high - this.low) * tall;
  }

  // The places of a line's points, at most four in a column of pixels.
  thin({ x, y }) {
    const places = [];
    let column = null, first, low, high, last;
    const flush = () => {
      if (column === null) return;
      const kept = [...new Set([first, low, high, last])].sort((a, b) => a - b);
      for (const index of kept) places.push([this.placeX(x[index]), this.placeY(y[index])]);
    };
    for (let index = 0; index < x.length; index++) {
      const here = Math.round(this.placeX(x[index]));
      if (here !== column) { flush(); column = here; first = low = high = index; }
      if (y[index] < y[low]) low = index;
      if (y[index] > y[high]) high = index;
      last = index;
    }
    flush();
    return places;
  }

  // Show the values nearest to a place in pixels.
  read(place) {
    if (!this.lines.length || !this.placeX) return;
    const value = this.first + (place - this.placeX(this.first)) / (this.placeX(this.last) - this.placeX(this.first)) * (this.last - this.first);
    let at = null;
    const texts = this.lines.map((line) => {
      const index = nearest(line.x, value);
      if (at === null || Math.abs(line.x[index] - value) < Math.abs(at - value)) at = line.x[index];
      return `${line.name} ${numberText(line.y[index])}`;
    });
    this.reading.textContent = `${numberText(at)}: ${texts.join(" · ")}`;
    this.draw(this.placeX(at));
  }
}

function stroke(pen, places) {
  pen.beginPath();
  places.forEach(([x, y], index) => index ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.stroke();
}

function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low > 0 && value - sorted[low - 1] < sorted[low] - value ? low - 1 : low;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index++) found.push(index * step);
  return found;
}

function numberText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(4));
  return text.replace("-", "\u2212");
}
