// Line charts as SVG: seconds from left to right, the newest at the right edge.
// A chart can be read with pointer or arrow keys; what it shows is told in its label.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170, LEFT = 50, TOP = 8, BOTTOM = 22;
const SPAN_MS = 180_000;

/** An element with attributes and children; texts become text nodes, never markup. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "series") node.style.setProperty("--series", `var(--${value})`);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export class Chart {
  /**
   * @param figure the element to draw into
   * @param title its heading
   * @param series [{name, color, of: point => number, dashed, area}]
   * @param format of values, for people
   * @param least the smallest upper end of the axis
   */
  constructor(figure, { title, series, format, least }) {
    this.series = series;
    this.format = format;
    this.least = least;
    this.title = title;
    this.points = [];
    this.cursor = null;
    this.values = series.map(() => el("b"));
    const keys = series.map((one, place) =>
      el("span", { class: one.dashed ? "key dashed" : "key", series: one.color }, `${one.name} `, this.values[place]));
    this.svg = svg("svg", { role: "img", tabindex: "0" });
    figure.append(el("figcaption", {}, el("h2", {}, title), ...keys), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.moveTo(null));
    this.svg.addEventListener("blur", () => this.moveTo(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  show(points) {
    this.points = points;
    if (this.cursor !== null && !points.includes(this.cursor)) this.cursor = null;
    this.draw();
  }

  point(x) {
    const at = this.end() - SPAN_MS * (1 - (x - LEFT) / (this.svg.clientWidth - LEFT));
    const near = (best, one) => (Math.abs(one.at_ms - at) < Math.abs(best.at_ms - at) ? one : best);
    this.moveTo(this.points.length ? this.points.reduce(near) : null);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.points.length) return;
    event.preventDefault();
    const place = this.cursor === null ? this.points.length - 1 : this.points.indexOf(this.cursor) + step;
    this.moveTo(this.points[Math.max(0, Math.min(place, this.points.length - 1))]);
  }

  moveTo(point) {
    this.cursor = point;
    this.draw();
  }

  end() {
    return this.points.length ? this.points[this.points.length - 1].at_ms : 0;
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width) return;
    const all = this.series.flatMap((one) => this.points.map(one.of)).filter(Number.isFinite);
    const ticks = niceTicks(Math.max(this.least, ...all));
    const top = ticks[ticks.length - 1];
    const x = (point) => LEFT + (width - LEFT) * (1 - (this.end() - point.at_ms) / SPAN_MS);
    const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value / top);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(
      ...ticks.flatMap((tick) => gridLine(y(tick), width, tick ? this.format(tick) : "0")),
      ...[[180, "start"], [120, "middle"], [60, "middle"], [0, "end"]].map(([ago, anchor]) =>
        svg("text", { x: LEFT + (width - LEFT) * (1 - ago / 180), y: HEIGHT - 5, "text-anchor": anchor },
          ago ? `${ago / 60} min ago` : "now")),
      ...this.series.flatMap((one) => lines(one, this.points, x, y)),
    );
    if (this.cursor !== null) {
      this.svg.append(svg("line", { class: "cursor", x1: x(this.cursor), x2: x(this.cursor), y1: TOP, y2: y(0) }));
    }
    this.tell();
  }

  tell() {
    const point = this.cursor ?? this.points[this.points.length - 1];
    if (!point) return;
    const told = this.series.map((one) => this.format(one.of(point)));
    told.forEach((value, place) => { this.values[place].textContent = value; });
    const when = this.cursor === null ? "now" : `${Math.round((this.end() - point.at_ms) / 1000)} seconds ago`;
    const words = this.series.map((one, place) => `${one.name} ${told[place]}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}, ${when}: ${words}. Arrow keys move back and forth.`);
  }
}

function gridLine(y, width, label) {
  return [
    svg("line", { class: "grid", x1: LEFT, x2: width, y1: y, y2: y }),
    svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, label),
  ];
}

/** A path for each unbroken run of numbers; seconds without any stay empty. */
function lines(one, points, x, y) {
  const runs = [[]];
  for (const point of points) {
    const value = one.of(point);
    if (Number.isFinite(value)) runs[runs.length - 1].push([x(point), y(value)]);
    else if (runs[runs.length - 1].length) runs.push([]);
  }
  return runs.filter((run) => run.length).flatMap((run) => {
    const path = run.map(([px, py], place) => `${place ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    const line = svg("path", { class: one.dashed ? "line dashed" : "line", d: path });
    line.style.stroke = `var(--${one.color})`;
    if (!one.area) return [line];
    const area = svg("path", { class: "area", d: `${path}L${run[run.length - 1][0]} ${y(0)}L${run[0][0]} ${y(0)}Z` });
    area.style.fill = `var(--${one.color})`;
    return [area, line];
  });
}

/** Zero, and round numbers up to one that no value exceeds. */
function niceTicks(most) {
  const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, place) => place * step);
}
