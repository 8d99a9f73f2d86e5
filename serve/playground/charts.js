// Live charts of the server's load, drawn from what /metrics says.

import { ask } from "/playground/api.js";

const SAMPLES = 90;
const SECONDS = 1;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [240, 48];

// Each chart: its id, title, how a figure is written, and the least its axis spans.
const CHARTS = [
  ["running", "Running", (value) => String(value), 1],
  ["waiting", "Waiting", (value) => String(value), 1],
  ["kv", "KV cache", (value) => `${(value * 100).toFixed(1)}%`, 0.01],
  ["speed", "Tokens/s", (value) => value.toFixed(value < 10 ? 1 : 0), 1],
];

/**
 * Sums of a Prometheus text by metric name; of `kv_cache_usage_perc` the largest, since it is a
 * share of one engine's cache.
 */
export function parseMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const [, name, figure] = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)/.exec(line) ?? [];
    const value = Number(figure);
    if (!name || Number.isNaN(value)) continue;
    const before = found.get(name) ?? 0;
    found.set(name, name === "vllm:kv_cache_usage_perc" ? Math.max(before, value) : before + value);
  }
  return found;
}

/** Asks for metrics as long as the page is seen, and draws them. */
export class Charts {
  constructor(root, note, key) {
    this.note = note;
    this.key = key;
    this.before = null;
    this.paused = false;
    this.charts = CHARTS.map(([id, title, write, least]) => new Chart(root, id, title, write, least));
    this.tick();
  }

  /** Try again: the key changed, or the server came up. */
  resume() {
    this.paused = false;
  }

  async tick() {
    if (document.visibilityState === "visible" && !this.paused) await this.sample();
    setTimeout(() => this.tick(), SECONDS * 1000);
  }

  async sample() {
    try {
      const answer = await ask("/metrics", { key: this.key() });
      this.draw(parseMetrics(await answer.text()), performance.now() / 1000);
      this.note.hidden = true;
    } catch (error) {
      this.before = null;
      this.note.textContent = [error.title, error.message].filter(Boolean).join(": ");
      this.note.hidden = false;
      // Refused is refused: asking each second again would only fill the server's log.
      this.paused = error.status >= 400 && error.status < 500 && error.status !== 429;
    }
  }

  draw(metrics, now) {
    const total = metrics.get("vllm:generation_tokens_total") ?? 0;
    const since = this.before;
    // A total that fell is another server's: it was started again.
    const speed = since && total >= since.total ? (total - since.total) / (now - since.now) : 0;
    this.before = { total, now };
    const figures = [
      metrics.get("vllm:num_requests_running") ?? 0,
      metrics.get("llmkit_requests_waiting") ?? 0,
      metrics.get("vllm:kv_cache_usage_perc") ?? 0,
      speed,
    ];
    this.charts.forEach((chart, index) => chart.add(figures[index]));
  }
}

/** One line over the last samples. */
class Chart {
  constructor(root, id, title, write, least) {
    Object.assign(this, { title, write, least, values: [] });
    const figure = document.createElement("figure");
    figure.id = `chart-${id}`;
    const caption = document.createElement("figcaption");
    this.figure = document.createElement("b");
    this.figure.textContent = "–";
    caption.append(title, this.figure);
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", preserveAspectRatio: "none" });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.svg.append(this.area, this.line);
    this.svg.setAttribute("aria-label", `${title}: no figures yet`);
    figure.append(caption, this.svg);
    root.append(figure);
  }

  add(value) {
    this.values = [...this.values, value].slice(-SAMPLES);
    const top = Math.max(this.least, ...this.values);
    const x = (index) => WIDTH - ((this.values.length - 1 - index) * WIDTH) / (SAMPLES - 1);
    const y = (one) => HEIGHT - 1.5 - (one / top) * (HEIGHT - 4);
    const points = this.values.map((one, index) => `${x(index).toFixed(1)} ${y(one).toFixed(1)}`);
    this.line.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M${x(0).toFixed(1)} ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
    this.figure.textContent = this.write(value);
    const most = this.write(Math.max(...this.values));
    this.svg.setAttribute("aria-label", `${this.title}: now ${this.write(value)}, at most ${most}`);
  }
}

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
