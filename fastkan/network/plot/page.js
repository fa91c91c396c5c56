"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const edges = data.edges, layers = data.layers;
let cut = 0, pinned = null, shown = -1, tabbed = 0, all = false;
const drawn = { edges: [], lines: [], nodes: [], joins: [] };
const stops = [...new Set(edges.map((e) => e.score))].sort((a, b) => a - b);

const SVG = "http://www.w3.org/2000/svg";
function make(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function html(name, text, ...children) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}
function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}
function bounds(low, high) {  // both with the fewest digits that place each to a tenth of the range, as ends in numbers.py
  for (let digits = 2; digits < 7; digits++) {
    const near = [low, high].map((value) => Number(value.toPrecision(digits)));
    const off = Math.max(Math.abs(near[0] - low), Math.abs(near[1] - high));
    if (low === high || off <= 0.1 * (high - low)) return near.map((value) => plain(value));
  }
  return [plain(low), "+" + plain(high - low, 2)];
}
function plain(value, digits = 6) {
  const size = Math.abs(value);
  return size && (size >= 1e6 || size < 1e-3) ? String(Number(value.toPrecision(digits)).toExponential()).replace("e+", "e")
    : String(Number(value.toPrecision(digits)));
}
const round = (value) => Math.round(value * 100) / 100;
const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// The edges that are drawn: all, or the strongest of each layer and the nodes they join

const FEW = data.most;
const strongest = layers.map((_, l) => edges.map((e, k) => k).filter((k) => edges[k].layer === l)
  .sort((a, b) => edges[b].score - edges[a].score).slice(0, FEW));
const some = new Set(strongest.flat());
const visible = (k) => all || some.has(k);
function joined() {  // of each layer, the nodes that are drawn; where nodes multiply, all
  const used = layers.map(() => new Set());
  edges.forEach((e, k) => { if (visible(k)) { used[e.layer].add(e.from); used[e.layer + 1].add(e.node); } });
  const whole = layers.map((_, l) => [l, l - 1].every((m) => all || edges.filter((e) => e.layer === m).length <= FEW));
  return layers.map((layer, l) => layer.nodes.map((_, n) => n).filter((n) => whole[l] || layer.product || used[l].has(n)));
}

// What is left of the network

function alive() {
  const threshold = cut ? stops[cut - 1] : -Infinity;
  const on = edges.map((e) => e.score > threshold);
  const nodes = layers.map((layer) => layer.nodes.map(() => true));
  for (let changed = true; changed; ) {
    changed = false;
    const out = layers.map((layer) => layer.nodes.map(() => false)), into = layers.map((layer) => layer.nodes.map(() => false));
    edges.forEach((e, k) => { if (on[k]) { out[e.layer][e.from] = true; into[e.layer + 1][e.node] = true; } });
    edges.forEach((e, k) => {
      const lost = (e.layer > 0 && !into[e.layer][e.from]) || (e.layer + 2 < layers.length && !out[e.layer + 1][e.node]);
      if (on[k] && lost) { on[k] = false; changed = true; }
    });
    layers.forEach((layer, l) => layer.nodes.forEach((_, n) => {
      nodes[l][n] = l === layers.length - 1 || out[l][n];
    }));
  }
  return { on, nodes };
}

// Places: inputs below, outputs above; the boxes of a layer's edges in staggered rows

const RADIUS = 9, DOT = 5, LEAST = 40, MOST = 84, ROWS = 8, HEAD = 15, HEADED = 44;

function spread(count, width) {
  return Array.from({ length: count }, (_, n) => ((n + 0.5) / count) * width);
}
function layout(room) {
  const kept = joined();
  const counts = layers.slice(0, -1).map((_, l) => edges.filter((e, k) => e.layer === l && visible(k)).length);
  const widest = Math.max(...layers.map((layer, l) => Math.max(kept[l].length * 22, (layer.product && layer.subnodes.length) * 24)));
  const most = Math.max(1, ...counts);
  const width = Math.max(room, widest, (most / ROWS) * LEAST * 1.3);
  const slot = [0, layers.length - 1].map((l) => width / kept[l].length);
  const long = [0, layers.length - 1].map((l) => Math.max(0, ...layers[l].nodes.map((n) => Math.min(n.name.length, 24))));
  const upright = long.map((length, k) => length * 7.6 > slot[k] - 6);
  const ranges = layers.map((_, l) => {  // lines of the range of a node: 0 where there is no room
    const free = l ? width / kept[l].length / 2 - RADIUS - 5 : width / kept[l].length;
    return l + 1 === layers.length || free < 44 || (l === 0 && upright[0]) ? 0 : free < 84 ? 2 : 1;
  });
  const text = long.map((length, k) => (length ? (upright[k] ? length * 7.4 + 14 : 26) : 8));
  text[0] += 13 * ranges[0] + (ranges[0] ? 2 : 0);
  const rows = counts.map((count) => {
    for (let r = 1; r < ROWS; r++) if ((0.8 * width * r) / count >= Math.min(LEAST + 6, 0.8 * width)) return r;
    return ROWS;
  });
  const sides = counts.map((count, l) => Math.min(MOST, (0.8 * width * rows[l]) / Math.max(count, rows[l])));
  const places = [], boxes = [];
  let y = text[1] + RADIUS;
  for (let l = layers.length - 1; l >= 0; l--) {
    const layer = layers[l], place = { nodes: [], subnodes: [] };
    spread(kept[l].length, width).forEach((x, n) => { place.nodes[kept[l][n]] = [x, y]; });
    if (layer.product) {
      y += 46;
      place.subnodes = spread(layer.subnodes.length, width).map((x) => [x, y]);
    } else place.subnodes = place.nodes;
    places[l] = place;
    if (!l) break;
    const side = sides[l - 1], r = rows[l - 1], count = counts[l - 1], pitch = side * 1.16;
    const fan = Math.min(90, 34 + 0.045 * width);
    const step = count > 1 ? (width - side - 8) / (count - 1) : 0;
    boxes[l - 1] = Array.from({ length: count }, (_, k) => [
      r === 1 ? ((k + 0.5) / count) * width : side / 2 + 4 + k * step,
      y + fan + side / 2 + (r - 1 - (k % r)) * pitch,
    ]);
    y += 2 * fan + side + (r - 1) * pitch;
  }
  return { width, height: y + DOT + text[0], places, boxes, sides, upright, ranges };
}

function curvePath(e, x, y, side) {
  const inside = side * 0.78, span = e.high - e.low, left = x - inside / 2, bottom = y + inside / 2;
  const tall = side >= HEADED ? side * 0.89 - HEAD : inside;
  let path = "", pen = "M";
  e.y.forEach((value, k) => {
    if (value === null) { pen = "M"; return; }
    const up = span > 0 ? (value - e.low) / span : 0.5;
    path += pen + round(left + (k / (e.y.length - 1)) * inside) + " " + round(bottom - up * tall);
    pen = "L";
  });
  return path;
}

function draw() {
  const holder = byId("network"), room = Math.max(280, holder.clientWidth);
  const at = layout(room);
  const svg = make("svg", {
    width: at.width, height: at.height, viewBox: `0 0 ${at.width} ${at.height}`, role: "group",
    "aria-label": "The network. Arrow keys go from edge to edge, Enter keeps one, Escape lets it go.",
  });
  const wires = make("g", {}), boxes = make("g", {});
  drawn.edges = []; drawn.lines = []; drawn.nodes = layers.map(() => []); drawn.joins = [];
  const seen = layers.map(() => 0);
  edges.forEach((e, k) => {
    if (!visible(k)) return;
    const [x, y] = at.boxes[e.layer][seen[e.layer]++], side = at.sides[e.layer];
    const [fx, fy] = at.places[e.layer].nodes[e.from], [tx, ty] = at.places[e.layer + 1].subnodes[e.to];
    const wire = `M${round(fx)} ${round(fy)}L${round(x)} ${round(y + side / 2)}M${round(x)} ${round(y - side / 2)}L${round(tx)} ${round(ty)}`;
    const lines = make("g", { class: `lines ${e.mode}` }, make("path", { class: "near", d: wire }), make("path", { class: "wire", d: wire }));
    const group = make("g", { class: `edge ${e.mode}`, role: "button", tabindex: "-1", "aria-pressed": "false", "aria-label": spoken(e) },
      make("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, rx: Math.min(4, side / 8) }),
      make("path", { class: "curve", d: curvePath(e, x, y, side) }));
    if (side >= HEADED)
      group.append(make("text", { class: "scale", x: x - side / 2 + 4, y: y - side / 2 + 12 }, "↕ " + plain(e.high - e.low, 2)));
    for (const part of [lines, group]) {
      part.style.setProperty("--strength", strength(e.score));
      part.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") show(k); });
      part.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") show(pinned); });
      part.addEventListener("click", () => { pin(pinned === k ? null : k); focusOn(k); });
    }
    group.addEventListener("focus", () => show(k));
    group.addEventListener("blur", () => show(pinned));
    drawn.edges[k] = group;
    drawn.lines[k] = lines;
    boxes.append(group);
  });
  Object.keys(drawn.lines).sort((a, b) => edges[a].score - edges[b].score).forEach((k) => wires.append(drawn.lines[k]));
  const range = layers.map(() => []);
  edges.forEach((e) => { range[e.layer][e.from] = `[${bounds(e.from_x, e.to_x).join(", ")}]`;
  });
  svg.append(wires, boxes);
  layers.forEach((layer, l) => {
    const place = at.places[l];
    if (layer.product) layer.subnodes.forEach((owner, s) => {
      const [x, y] = place.subnodes[s], [tx, ty] = place.nodes[owner];
      const join = make("line", { class: "join", x1: x, y1: y, x2: tx, y2: ty });
      drawn.joins.push({ element: join, layer: l, owner });
      svg.append(join);
      const sum = make("g", { class: "node" }, make("circle", { cx: x, cy: y, r: RADIUS }), sign(x, y, "sum"));
      drawn.joins.push({ element: sum, layer: l, owner });
      svg.append(sum);
    });
    place.nodes.forEach(([x, y], n) => {
      const node = layer.nodes[n], dot = node.kind === "input" || node.kind === "copy";
      const said = `${node.kind} ${node.name || n + 1}${range[l][n] ? ", range " + range[l][n] : ""}`;
      const group = make("g", { class: dot ? "node dot" : "node", role: "img", "aria-label": said },
        make("title", {}, said), make("circle", { cx: x, cy: y, r: dot ? DOT : RADIUS }));
      if (!dot) group.append(sign(x, y, node.kind));
      if (at.ranges[l] && range[l][n]) group.append(...ranged(range[l][n], x, y, l === 0, at.ranges[l]));
      if (node.name) group.append(label(node.name, x, l === 0 ? y + 13 * at.ranges[0] : y, l === 0, at.upright[l === 0 ? 0 : 1]));
      drawn.nodes[l][n] = group;
      svg.append(group);
    });
  });
  svg.addEventListener("keydown", onKey);
  holder.replaceChildren(svg);
  update();
  if (shown !== null) mark(shown, "shown", true);
  if (pinned !== null) drawn.edges[pinned].setAttribute("aria-pressed", "true");
}
// 3 as in plot(); more where it would show no differences
const BETA = stops[stops.length - 1] * 3 < 0.5 ? 1.5 / (stops[stops.length - 1] || 1) : 3;
const strength = (score) => Math.max(data.least, Math.tanh(BETA * score));
function ranged(text, x, y, below, lines) {
  const place = below ? { x, "text-anchor": "middle" } : { x: x + RADIUS + 5 }, first = below ? y + 18 : y + (lines > 1 ? -2 : 4);
  return (lines > 1 ? text.split(" ") : [text]).map((line, n) => make("text", { class: "scale", y: first + 12 * n, ...place }, line));
}

function sign(x, y, kind) {
  const r = kind === "product" ? 4 : 5;
  return make("path", { d: kind === "product"
    ? `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}` : `M${x - r} ${y}H${x + r}M${x} ${y - r}V${y + r}` });
}
function label(name, x, y, below, upright) {
  const text = make("text", {}, shortened(name, 24));
  if (upright) {
    const from = below ? y + 12 : y - 15;
    text.setAttribute("transform", `translate(${x + 4.5} ${from}) rotate(-90)`);
    text.setAttribute("text-anchor", below ? "end" : "start");
  } else {
    text.setAttribute("x", x); text.setAttribute("y", below ? y + 20 : y - 15);
    text.setAttribute("text-anchor", "middle");
  }
  return text;
}

// The slider

function update() {
  const { on, nodes } = alive();
  drawn.edges.forEach((group, k) => {
    mark(k, "off", !on[k]);
    if (on[k]) group.removeAttribute("aria-hidden"); else group.setAttribute("aria-hidden", "true");
  });
  drawn.nodes.forEach((layer, l) => layer.forEach((group, n) => group.classList.toggle("off", !nodes[l][n])));
  drawn.joins.forEach((join) => join.element.classList.toggle("off", !nodes[join.layer][join.owner]));
  const left = on.filter(Boolean).length, total = nodes.flat().length, kept = nodes.flat().filter(Boolean).length;
  const threshold = cut ? `scores above ${number((stops[cut - 1] + stops[cut]) / 2)}: ` : "";
  const text = `${threshold}${left} of ${edges.length} edges, ${kept} of ${total} nodes`;
  byId("count").textContent = text;
  byId("cut").setAttribute("aria-valuetext", text);
  if (pinned !== null && !(on[pinned] && drawn.edges[pinned])) pin(null);
  if (!on[tabbed] || !drawn.edges[tabbed]) tabbed = Math.max(0, on.findIndex((set, k) => set && drawn.edges[k]));
  drawn.edges.forEach((group, k) => group.setAttribute("tabindex", k === tabbed ? "0" : "-1"));
}

// Hover, click, keys

function focusOn(k) {
  drawn.edges[tabbed].setAttribute("tabindex", "-1");
  tabbed = k;
  drawn.edges[k].setAttribute("tabindex", "0");
  drawn.edges[k].focus();
}
function pin(k) {
  if (pinned !== null) drawn.edges[pinned]?.setAttribute("aria-pressed", "false");
  pinned = k;
  if (k !== null) drawn.edges[k].setAttribute("aria-pressed", "true");
  show(k, true);
}
function mark(k, state, set) {
  for (const part of [drawn.edges[k], drawn.lines[k]]) part?.classList.toggle(state, set);
}
function uncover(k) {  // where the panel lies over the edge, as on a phone
  const hidden = drawn.edges[k].getBoundingClientRect().bottom + 12 - byId("detail").getBoundingClientRect().top;
  if (matchMedia("(max-width: 760px)").matches && hidden > 0) window.scrollBy(0, hidden);
}
function onKey(event) {
  const k = drawn.edges.indexOf(event.target);
  if (k < 0) return;
  const on = edges.map((_, n) => n).filter((n) => drawn.edges[n] && !drawn.edges[n].classList.contains("off"));
  const row = on.filter((n) => edges[n].layer === edges[k].layer);
  const place = row.indexOf(k) / Math.max(1, row.length - 1);
  const to = (layer) => {
    const other = on.filter((n) => edges[n].layer === layer);
    return other.length ? other[Math.round(place * (other.length - 1))] : k;
  };
  const target = {
    ArrowRight: row[(row.indexOf(k) + 1) % row.length], ArrowLeft: row[(row.indexOf(k) + row.length - 1) % row.length],
    ArrowUp: to(edges[k].layer + 1), ArrowDown: to(edges[k].layer - 1), Home: on[0], End: on[on.length - 1],
  }[event.key];
  if (target !== undefined) focusOn(target);
  else if (event.key === "Enter" || event.key === " ") pin(pinned === k ? null : k);
  else return;
  event.preventDefault();
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  pin(null);
  if (drawn.edges.includes(document.activeElement)) document.activeElement.blur();
});

// The chosen edge

function ends(e) {
  const from = layers[e.layer].nodes[e.from], to = layers[e.layer + 1].nodes[e.node];
  const name = (node, l, n) => node.name || `node ${n + 1} of layer ${l}`;
  return `${name(from, e.layer, e.from)} → ${name(to, e.layer + 1, e.node)}`;
}
const learnt = edges.every((e) => e.mode === "s" || e.detail.startsWith("spline")) ? "spline" : "numeric";
const KINDS = { n: learnt, s: "formula", ns: `${learnt} and formula` };
function spoken(e) {
  return `Edge ${ends(e)}: ${KINDS[e.mode]}${e.formula ? " " + e.formula : ""}, score ${number(e.score)}`;
}
function show(k, again = false) {
  if (k === shown && !again) return;
  mark(shown, "shown", false);
  shown = k;
  const panel = byId("detail");
  if (k === null) {
    panel.replaceChildren(html("p", "Hover, tap or tab to an edge for its curve. Arrow keys go on, Enter keeps it, Escape lets it go."));
    return;
  }
  const e = edges[k];
  mark(k, "shown", true);
  const facts = html("dl", null);
  const rows = { kind: e.detail, formula: e.formula, input: bounds(e.from_x, e.to_x).join(" to "),
    output: e.low === e.high ? plain(e.low, 3) : bounds(e.low, e.high).join(" to "), score: number(e.score), edge: `layer ${e.layer}, ${e.from} → ${e.to}` };
  for (const [name, value] of Object.entries(rows)) if (value) facts.append(html("dt", name), html("dd", value));
  const parts = [html("h2", ends(e)), chart(e), facts];
  if (pinned === k) {
    const close = html("button", "✕");
    close.setAttribute("aria-label", "Let this edge go");
    close.addEventListener("click", () => { pin(null); drawn.edges[k].focus(); });
    parts.unshift(close);
  }
  panel.replaceChildren(...parts);
  uncover(k);
}
function chart(e) {
  const width = 300, height = 190, left = 50, right = 8, top = 10, bottom = 34;
  const w = width - left - right, h = height - top - bottom, span = e.high - e.low || 1;
  const px = (x) => left + (e.to_x > e.from_x ? ((x - e.from_x) / (e.to_x - e.from_x)) * w : w / 2);
  const py = (y) => top + h - ((y - e.low) / span) * h * 0.92 - h * 0.04;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: e.mode, "aria-label": spoken(e) });
  svg.append(make("path", { class: "axis", fill: "none", d: `M${left} ${top}V${top + h}H${left + w}` }));
  if (e.low < 0 && e.high > 0) svg.append(make("path", { class: "zero", d: `M${left} ${py(0)}H${left + w}` }));
  for (const x of e.data) svg.append(make("path", { class: "rug", d: `M${round(px(x))} ${top + h}v-6` }));
  let path = "", pen = "M";
  e.y.forEach((value, n) => {
    if (value === null) { pen = "M"; return; }
    path += pen + round(left + (n / (e.y.length - 1)) * w) + " " + round(py(value));
    pen = "L";
  });
  svg.append(make("path", { class: "plot", d: path }));
  const tick = (x, y, anchor, text) => svg.append(make("text", { class: "tick", x, y, "text-anchor": anchor }, text));
  const across = bounds(e.from_x, e.to_x), up = bounds(e.low, e.high);
  tick(left, height - 18, "start", across[0]); tick(left + w, height - 18, "end", across[1]);
  tick(left - 5, py(e.high) + 4, "end", up[1]);
  if (e.high > e.low) tick(left - 5, py(e.low) + 4, "end", up[0]);
  tick(left + w / 2, height - 4, "middle", "input; strokes: quantiles of the data");
  return svg;
}

// The page

byId("title").textContent = data.title;
byId("caption").textContent = data.caption;
const inner = layers.slice(1, -1).map((layer) => layer.nodes.length);
byId("summary").textContent = `${layers[0].nodes.length} inputs, ${inner.length ? inner.join(" and ") + " hidden nodes, " : ""}` +
  `${layers[layers.length - 1].nodes.length} output${layers[layers.length - 1].nodes.length > 1 ? "s" : ""}; the stronger an edge, the more the output depends on it`;
function entry(text, kind, opacity, sample = html("i", null)) {
  const made = html("span", null, sample, text);
  made.className = kind;
  sample.style.opacity = opacity;
  byId("legend").append(made);
}
function symbol(kind) {
  const dot = kind === "input", mark = make("circle", { cx: 9, cy: 9, r: dot ? 5 : 8 });
  return make("svg", { width: 18, height: 18, "aria-hidden": "true" },
    make("g", { class: dot ? "node dot" : "node" }, mark, ...(dot ? [] : [sign(9, 9, kind)])));
}
for (const [text, opacity] of [["score ≤ ", data.least], ["", 0.6], ["≥ ", 0.95]])
  entry(text + plain(Math.atanh(opacity) / BETA, 1), "n", opacity);
for (const mode of Object.keys(KINDS)) if (edges.some((e) => e.mode === mode)) entry(KINDS[mode], mode, 1);
for (const kind of ["input", "sum", "product"])
  if (kind !== "product" || layers.some((layer) => layer.product)) entry(kind, "", 1, symbol(kind));
entry("height of a curve, highest minus lowest value", "", 1, html("b", "↕"));
entry("range of a node, the horizontal axis of its curves", "", 1, html("b", "[a, b]"));
byId("more").hidden = some.size === edges.length;
byId("most").textContent = `all ${edges.length} edges, not only the ${some.size} strongest: up to ${FEW} of each layer`;
byId("all").addEventListener("input", () => { all = byId("all").checked; draw(); });
byId("cut").max = Math.max(0, stops.length - 1);
byId("cut").disabled = stops.length < 2;
byId("cut").addEventListener("input", () => { cut = Number(byId("cut").value); update(); });
draw();
show(null);
let width = byId("network").clientWidth;
new ResizeObserver(() => {
  if (byId("network").clientWidth === width) return;
  width = byId("network").clientWidth;
  draw();
}).observe(byId("network"));
