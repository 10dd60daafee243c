"use strict";
// Charts of the model D: what the page shows of a search. Everything that a candidate or a caller wrote is put in as text.
let D = null;
let other = null; // the model of the search it is compared with
let less = false;
const NS = "http://www.w3.org/2000/svg";
const $ = id => document.getElementById(id);
const el = (tag, attrs = {}, ...kids) => { const e = document.createElement(tag); for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v); e.append(...kids); return e; };
const sv = (tag, attrs = {}, text) => { const e = document.createElementNS(NS, tag); for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v); if (text !== undefined) e.textContent = text; return e; };
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const num = v => v === null || v === undefined ? "–" : Number.isInteger(v) && Math.abs(v) < 1e6 ? v.toLocaleString("en") : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-4) ? v.toExponential(3).replace(/\.?0*e\+?/, "e") : String(+v.toPrecision(5));
const big = v => { for (const [n, w] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (v >= n) return +(v / n).toPrecision(3) + " " + w; return num(v); };
const tickText = v => { const a = Math.abs(v); if (a >= 1e15 || (a > 0 && a < 1e-3)) return v.toExponential(0).replace("e+", "e"); const s = big(a); return v < 0 ? "−" + s : s; };
const span = s => s >= 5400 ? (s / 3600).toFixed(1) + " h" : s >= 90 ? (s / 60).toFixed(1) + " min" : s >= 1 ? s.toFixed(1) + " s" : (s * 1000).toFixed(0) + " ms";
const one = (n, word) => num(n) + " " + word + (n === 1 ? "" : "s");
const COLOURS = ["#d1495b", "#e08e45", "#b08bd6", "#4c9f9b", "#8d99ae", "#c9a227", "#5b8e3e", "#a35d6a", "#5a7dbf", "#9c6b4f"];
const kinds = () => D.deaths.map(([kind]) => kind);
const colour = kind => COLOURS[Math.max(0, kinds().indexOf(kind)) % COLOURS.length];
const byGeneration = () => D.column_name === "generation";
const head = c => (byGeneration() ? c.width > 1 ? "generations " : "generation " : "evaluations ") + num(c.label) + (c.width > 1 ? " to " + num(c.label + c.width - 1) : "");

function ticks(low, high, n = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / n, p = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map(m => m * p).find(s => s >= raw * .999), out = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) out.push(Math.abs(t) < step * 1e-9 ? 0 : +t.toPrecision(12));
  return out;
}

// From how many times the smallest of the values the largest is on, an axis is logarithmic; of negative ones it is mirrored.
const SPREAD = 100;
function axisKind(values) {
  let least = Infinity, most = 0, plus = 0, minus = 0, zero = false;
  for (const v of values) { const a = Math.abs(v); if (a === 0) zero = true; else { least = Math.min(least, a); most = Math.max(most, a); if (v > 0) plus++; else minus++; } }
  if ((plus && minus) || !(most / least > SPREAD)) return { log: false, to: v => v, ticks: (lo, hi, n) => ticks(lo, hi, n).map(t => [t, t]) };
  const sign = minus ? -1 : 1, floor = zero ? least / 3 : least / 1e6, ground = Math.log10(floor);
  const to = v => sign * (v * sign > floor ? Math.log10(v * sign) : ground);
  return { log: true, to, ticks: (lo, hi, n) => logTicks(lo, hi, n, sign, zero ? ground : null) };
}
function logTicks(lo, hi, n, sign, ground) {
  const [a, b] = sign < 0 ? [-hi, -lo] : [lo, hi], out = [], whole = Math.floor(b) - Math.ceil(a) + 1;
  if (b - a < .7 && ground === null) for (const t of ticks(10 ** a, 10 ** b, n)) { if (t > 0) out.push([sign * Math.log10(t), sign * t]); }
  else {
    const every = Math.max(1, Math.ceil(whole / n)), marks = whole < 3 ? [1, 2, 5] : [1];
    for (let e = Math.floor(a); e <= b; e++) for (const m of marks) { const t = e + Math.log10(m); if (t >= a - 1e-9 && t <= b + 1e-9 && (marks.length > 1 || e % every === 0) && (ground === null || t > ground + .15)) out.push([sign * t, sign * +(m * 10 ** e).toPrecision(6)]); }
  }
  if (ground !== null && ground >= a && ground <= b) out.push([sign * ground, 0]);
  return out;
}

let clips = 0;
function frame(box, { height, low, high, marks, from, to, inset = 0, xText = num }) {
  box.replaceChildren();
  const w = Math.max(280, box.clientWidth), labels = marks.map(([, v]) => tickText(v)), right = 18;
  const left = Math.max(34, 16 + 7 * Math.max(0, ...labels.map(t => t.length)));
  const svg = sv("svg", { viewBox: `0 0 ${w} ${height}`, height, role: "img" }), bottom = height - 30, top = 8;
  const x = v => left + inset + (w - left - right - 2 * inset) * (to > from ? (v - from) / (to - from) : .5);
  const y = t => top + (bottom - top) * Math.max(-2, Math.min(3, high > low ? (high - t) / (high - low) : .5));
  marks.forEach(([t], i) => { if (t >= low && t <= high) svg.append(sv("line", { x1: left, x2: w - right, y1: y(t), y2: y(t), stroke: "var(--line)" }), sv("text", { x: left - 8, y: Math.max(12, y(t) + 4), "text-anchor": "end" }, labels[i])); });
  for (const t of ticks(from, to, Math.max(2, Math.floor((w - left) / 80)))) { if (!Number.isInteger(t)) continue; const px = x(t), half = 3.6 * xText(t).length, end = px + half > w - 2; svg.append(sv("text", { x: end ? w - 2 : px, y: height - 8, "text-anchor": end ? "end" : "middle" }, xText(t))); }
  const id = "clip" + clips++, clip = sv("clipPath", { id }), inner = sv("g", { "clip-path": `url(#${id})` });
  clip.append(sv("rect", { x: left, y: top - 3, width: Math.max(1, w - left - right + 3), height: bottom - top + 6 })); svg.append(clip, inner); box.append(svg);
  return { svg, inner, x, y, w, left, right, top, bottom, inset };
}
function hover(box, f, places, text) {
  const tip = el("div", { class: "tip" }), mark = sv("line", { y1: f.top, y2: f.bottom, stroke: "var(--dim)", visibility: "hidden" });
  box.append(tip); f.svg.append(mark);
  box.onpointermove = e => {
    const r = box.getBoundingClientRect(), px = (e.clientX - r.left) * f.w / r.width;
    let i = 0; places.forEach((p, k) => { if (Math.abs(p - px) < Math.abs(places[i] - px)) i = k; });
    tip.textContent = text(i); tip.style.display = "block";
    mark.setAttribute("x1", places[i]); mark.setAttribute("x2", places[i]); mark.setAttribute("visibility", "visible");
    tip.style.left = Math.max(0, Math.min(e.clientX - r.left + 14, r.width - tip.offsetWidth - 4)) + "px"; tip.style.top = "14px";
  };
  box.onpointerleave = () => { tip.style.display = "none"; mark.setAttribute("visibility", "hidden"); };
}

function fitness() {
  const box = $("fitness"), cs = D.columns, scored = cs.filter(c => c.quartiles), rivals = other && other.column_name === D.column_name ? other.columns.filter(c => c.quartiles) : [];
  if (!scored.length) { box.textContent = "No individual was valid."; box.onpointermove = null; $("fitness-about").textContent = ""; return; }
  const kind = axisKind([...scored, ...rivals].flatMap(c => [c.quartiles[1], less ? c.quartiles[2] : c.quartiles[0], c.best]));
  // A few hopeless individuals must not press what matters into one line: the far side ends where most of the middle halves do.
  const far = scored.map(c => kind.to(less ? c.quartiles[2] : c.quartiles[0])).sort((a, b) => less ? a - b : b - a), edge = far[Math.floor(.8 * (far.length - 1))];
  const bests = [...scored, ...rivals].map(c => kind.to(c.best)), ends = scored.flatMap(c => [kind.to(c.low), kind.to(c.high)]);
  let low = Math.min(edge, ...bests), high = Math.max(edge, ...bests); const grow = (high - low) * .35;
  if (less) high = Math.min(high + grow, Math.max(high, ...ends)); else low = Math.max(low - grow, Math.min(low, ...ends));
  const cut = ends.some(t => t > high || t < low), pad = (high - low || Math.abs(high) || 1) * .04; low -= pad; high += pad;
  $("fitness-about").textContent = "Of the valid individuals; invalid ones are under deaths." + (kind.log ? " The axis is logarithmic." : "") + (cut ? " What lies far off is outside of it." : "");
  const labels = [...cs, ...rivals].map(c => c.label), f = frame(box, { height: 300, low, high, marks: kind.ticks(low, high, 5), from: Math.min(...labels), to: Math.max(...labels) });
  const y = v => f.y(kind.to(v)), runs = []; let run = [];
  for (const c of cs) { if (c.quartiles) run.push(c); else if (run.length) { runs.push(run); run = []; } } if (run.length) runs.push(run);
  const band = (a, b) => { for (const r of runs) { const wide = r.length > 1 ? 0 : 3; f.inner.append(sv("polygon", { fill: "var(--accent-soft)", points: [...r.map(c => `${f.x(c.label) - wide},${y(a(c))}`), ...[...r].reverse().map(c => `${f.x(c.label) + wide},${y(b(c))}`)].join(" ") })); } };
  const path = (v, attrs) => { for (const r of runs) f.inner.append(sv("polyline", { fill: "none", ...attrs, points: r.filter(c => v(c) !== null).map(c => `${f.x(c.label)},${y(v(c))}`).join(" ") })); };
  const steps = (columns, attrs) => { const p = []; columns.filter(c => c.best !== null).forEach((c, k, all) => { if (k) p.push(`${f.x(c.label)},${y(all[k - 1].best)}`); p.push(`${f.x(c.label)},${y(c.best)}`); }); f.inner.append(sv("polyline", { fill: "none", "stroke-width": 2.5, ...attrs, points: p.join(" ") })); };
  band(c => c.high, c => c.low); band(c => c.quartiles[2], c => c.quartiles[0]);
  path(c => c.quartiles[1], { stroke: "var(--accent)", "stroke-width": 2 }); path(c => c.mean, { stroke: "var(--dim)", "stroke-width": 1.5, "stroke-dasharray": "3 4" });
  if (rivals.length) { f.inner.append(sv("polyline", { fill: "none", stroke: "var(--other)", "stroke-width": 1.5, "stroke-dasharray": "6 3", points: rivals.map(c => `${f.x(c.label)},${y(c.quartiles[1])}`).join(" ") })); steps(other.columns, { stroke: "var(--other)", class: "rival" }); }
  steps(cs, { stroke: "var(--good)" });
  hover(box, f, cs.map(c => f.x(c.label)), i => { const c = cs[i]; return [head(c), `best so far ${num(c.best)}`, c.quartiles ? `median ${num(c.quartiles[1])}, mean ${num(c.mean)}\nmiddle half ${num(c.quartiles[0])} to ${num(c.quartiles[2])}\nall ${num(c.low)} to ${num(c.high)}` : "nobody valid", `${num(c.n_valid)} valid of ${num(c.n)}`].join("\n"); });
  const key = [["background:var(--good)", "best so far"], ["background:var(--accent)", "median"], ["background:var(--accent-soft);box-shadow:inset 0 0 0 11px var(--accent-soft)", "middle half"], ["background:var(--accent-soft)", "all"], ["background:var(--dim)", "mean (dashed)"], ...(rivals.length ? [["background:var(--other)", `best of ${other.title}; its median dashed`]] : [])];
  $("fitness-key").replaceChildren(...key.map(([style, text]) => { const i = el("i"); i.style.cssText = style; return el("span", {}, i, text); }));
}

// Columns put together until there is room for a bar for each; a bar is as high as the mean of its columns.
function bins(most) {
  const size = Math.max(1, Math.ceil(D.columns.length / Math.max(1, most))), out = [];
  for (let i = 0; i < D.columns.length; i += size) {
    const some = D.columns.slice(i, i + size), last = some[some.length - 1], deaths = {};
    for (const c of some) for (const [kind, n] of Object.entries(c.deaths)) deaths[kind] = (deaths[kind] || 0) + n;
    const sum = key => some.reduce((a, c) => a + c[key], 0);
    out.push({ columns: some.length, label: some[0].label, width: last.label + last.width - some[0].label, n: sum("n"), fuel: sum("fuel"), busy_s: sum("busy_s"), deaths });
  }
  return out;
}
function bars(box, height, value, draw, text) {
  const some = bins(Math.floor((Math.max(280, box.clientWidth) - 60) / 7)), most = Math.max(1, ...some.map(b => value(b) / b.columns));
  const f = frame(box, { height, low: 0, high: most, marks: ticks(0, most, 4).map(t => [t, t]), from: 0, to: some.length - 1, inset: 14, xText: i => some[i] ? num(some[i].label) : "" });
  const wide = Math.max(2, Math.min(26, (f.w - f.left - f.right - 28) / Math.max(1, some.length) - 1.5));
  some.forEach((b, i) => draw(f, b, f.x(i) - wide / 2, wide));
  hover(box, f, some.map((_, i) => f.x(i)), i => text(some[i]));
}
function deaths() {
  const total = Math.max(1, ...D.deaths.map(d => d[1])), list = $("deaths-bars"), box = $("deaths"); list.replaceChildren();
  for (const [kind, n] of D.deaths) { const bar = el("div"); bar.style.cssText = `background:${colour(kind)};width:${100 * n / total}%`; list.append(el("span", {}, kind), bar, el("span", {}, num(n))); }
  const dead = D.deaths.reduce((a, d) => a + d[1], 0); $("deaths-about").textContent = `${num(dead)} of ${num(D.n_individuals)} individuals are invalid, for these reasons; below, by ${byGeneration() ? "generation" : "evaluations"}.`;
  if (!D.deaths.length) { list.append("Nobody died."); box.replaceChildren(); box.onpointermove = null; return; }
  const names = kinds();
  bars(box, 210, b => Object.values(b.deaths).reduce((a, n) => a + n, 0), (f, b, x, width) => { let at = 0; for (const kind of names) { const n = (b.deaths[kind] || 0) / b.columns; if (!n) continue; f.inner.append(sv("rect", { x, width, y: f.y(at + n), height: f.y(at) - f.y(at + n), fill: colour(kind) })); at += n; } }, b => [head(b), ...names.filter(k => b.deaths[k]).map(k => `${k} ${num(b.deaths[k])}`)].join("\n"));
}
function cost() {
  $("cost-about").textContent = `Fuel by ${byGeneration() ? "generation" : "evaluations"}: ${big(D.fuel)} in all, ${big(D.n_individuals ? D.fuel / D.n_individuals : 0)} each; ${span(D.busy_s)} of evaluation in ${span(D.wall_s)}.`;
  bars($("cost"), 310, b => b.fuel, (f, b, x, width) => f.inner.append(sv("rect", { x, width, y: f.y(b.fuel / b.columns), height: f.bottom - f.y(b.fuel / b.columns) + .01, fill: "var(--accent)", opacity: .8, rx: Math.min(2, width / 3) })), b => `${head(b)}\n${big(b.fuel)} fuel\n${span(b.busy_s)} of evaluation\n${one(b.n, "individual")}`);
}

function scatter(opens, show) {
  const box = $("scatter"), P = D.points, height = 340, ratio = devicePixelRatio || 1; box.replaceChildren();
  const live = []; for (let i = 0; i < P.score.length; i++) if (P.score[i] !== null && P.score[i] !== undefined && P.fuel[i] > 0) live.push(i);
  if (!live.length) { $("scatter-about").textContent = ""; box.textContent = "No individual was valid."; return; }
  const scores = live.map(i => P.score[i]).sort((a, b) => a - b), at = q => scores[Math.floor(q * (scores.length - 1))], best = D.leaders[0];
  const ends = less ? [best ? best.score : scores[0], at(.9)] : [at(.1), best ? best.score : scores[scores.length - 1]], kind = axisKind([...ends, at(.5)]);
  let low = kind.to(Math.min(...ends, scores[0] >= ends[0] ? scores[0] : ends[0])), high = kind.to(Math.max(...ends)); const pad = (high - low || Math.abs(high) || 1) * .05; low -= pad; high += pad;
  let lo = Infinity, hi = 0; for (const i of live) { lo = Math.min(lo, P.fuel[i]); hi = Math.max(hi, P.fuel[i]); } lo = Math.log10(lo) - .03; hi = Math.log10(hi) + .03;
  const marks = kind.ticks(low, high, 5), w = Math.max(280, box.clientWidth), left = 16 + 7 * Math.max(2, ...marks.map(([, v]) => tickText(v).length)), right = 16;
  const canvas = el("canvas", { width: w * ratio, height: height * ratio, tabindex: 0, "aria-label": "fuel against fitness" }); canvas.style.height = height + "px"; box.append(canvas);
  const tip = el("div", { class: "tip" }), g = canvas.getContext("2d"); box.append(tip); g.scale(ratio, ratio); g.font = "12px system-ui, sans-serif";
  const x = i => left + (w - left - right) * (Math.log10(P.fuel[i]) - lo) / (hi - lo), y = t => 8 + (height - 40) * (high - t) / (high - low);
  g.fillStyle = css("--dim"); g.strokeStyle = css("--line"); g.textAlign = "right";
  for (const [t, v] of marks) if (t >= low && t <= high) { g.beginPath(); g.moveTo(left, y(t)); g.lineTo(w - right, y(t)); g.stroke(); g.fillText(tickText(v), left - 8, Math.max(12, y(t) + 4)); }
  let until = -Infinity; for (const [t, v] of logTicks(lo, hi, Math.max(2, Math.floor((w - left) / 70)), 1, null)) { const text = tickText(v), half = g.measureText(text).width / 2, px = left + (w - left - right) * (t - lo) / (hi - lo); if (px - half < until || px + half > w) continue; g.textAlign = "center"; g.fillText(text, px, height - 8); until = px + half + 6; }
  const inside = live.filter(i => { const t = kind.to(P.score[i]); return t >= low && t <= high; }), away = live.length - inside.length, first = D.columns.length ? D.columns[0].label : 0, last = Math.max(first + 1, ...D.columns.slice(-1).map(c => c.label));
  g.fillStyle = css("--accent"); const many = Math.min(1, 2500 / inside.length), size = inside.length > 10000 ? 1.4 : inside.length > 3000 ? 2 : 3.2;
  for (const i of inside) { g.globalAlpha = (.12 + .25 * many) + .45 * (P.column[i] - first) / (last - first); g.beginPath(); g.arc(x(i), y(kind.to(P.score[i])), size, 0, 7); g.fill(); }
  if (best && best.fuel > 0) { const px = left + (w - left - right) * (Math.log10(best.fuel) - lo) / (hi - lo); g.globalAlpha = 1; g.strokeStyle = css("--good"); g.lineWidth = 2.5; g.beginPath(); g.arc(px, y(kind.to(best.score)), 7, 0, 7); g.stroke(); }
  $("scatter-about").textContent = (D.stride > 1 ? `Each point is one of ${num(D.stride)} individuals` : "Each point is an individual") + "; lighter ones are older, the ring is the best." + (away ? ` ${num(away)} with ${less ? "more" : "less"} fitness are outside.` : "") + " Click one to open it.";
  const near = e => { const r = canvas.getBoundingClientRect(), px = e.clientX - r.left, py = e.clientY - r.top; let found = -1, least = 200; for (const i of inside) { const d = (x(i) - px) ** 2 + (y(kind.to(P.score[i])) - py) ** 2; if (d < least) { least = d; found = i; } } return found; };
  canvas.onpointermove = e => { const i = near(e); tip.style.display = i < 0 ? "none" : "block"; canvas.style.cursor = i >= 0 && opens(i) ? "pointer" : "default"; if (i < 0) return; tip.textContent = `${P.id[i]}\nfitness ${num(P.score[i])}\n${big(P.fuel[i])} fuel` + (opens(i) ? "" : "\nnot among the ancestors of the best"); tip.style.left = Math.max(0, Math.min(x(i) + 12, w - tip.offsetWidth - 4)) + "px"; tip.style.top = y(kind.to(P.score[i])) + 10 + "px"; };
  canvas.onpointerleave = () => { tip.style.display = "none"; };
  canvas.onclick = e => { const i = near(e); if (i >= 0 && opens(i)) show(i); };
}
