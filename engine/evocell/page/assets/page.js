// The lineage tree, the card of an individual, the best program and the tables.
let byNumber = new Map(), byId = new Map(), view = null, moved = false, firstOnly = false, chosen = null, picked = false, shownBest = null;
let details = async number => byNumber.get(number) || null; // the live page asks for them

function tree() {
  const box = $("tree"); box.replaceChildren();
  byNumber = new Map(D.tree.map(m => [m.number, m])); byId = new Map(D.tree.map(m => [m.id, m]));
  const inTree = D.tree.filter(m => m.in_tree).length;
  $("tree-about").textContent = `${one(D.n_family, "individual")} led to the best` + (inTree < D.n_family ? `; ${num(inTree)} of them are shown, the line of first parents and the youngest others` : "") + ". Scroll to zoom, drag to move, click one for its source. The green line follows first parents; greener means fitter.";
  const members = D.tree.filter(m => firstOnly ? m.in_line : m.in_tree), depth = new Map(), rows = [];
  if (!members.length) { box.textContent = "No individual was valid."; return; }
  for (const m of members) { const up = m.parents.map(p => depth.get(p.number)).filter(d => d !== undefined); depth.set(m.number, byGeneration() ? m.generation : up.length ? Math.max(...up) + 1 : 0); }
  const levels = new Map([...new Set(depth.values())].sort((a, b) => a - b).map((level, r) => [level, r]));
  for (const m of members) (rows[levels.get(depth.get(m.number))] ||= []).push(m);
  const at = new Map(), gapX = 46, gapY = 58;
  rows.forEach((row, r) => { const pull = m => { const xs = m.parents.map(p => at.get(p.number)).filter(Boolean).map(p => p.x); return xs.length ? xs.reduce((a, b) => a + b, 0) / xs.length : 0; }; row.sort((a, b) => pull(a) - pull(b) || a.number - b.number); row.forEach((m, i) => at.set(m.number, { x: (i - (row.length - 1) / 2) * gapX, y: r * gapY })); });
  const svg = sv("svg", { role: "img", "aria-label": "lineage tree" }), g = sv("g"); svg.append(g); box.append(svg);
  const edges = sv("g", { fill: "none" }); g.append(edges);
  for (const m of members) m.parents.forEach((p, k) => { const a = at.get(p.number), b = at.get(m.number); if (!a) return; const main = m.in_line && k === 0; edges.append(sv("path", { d: `M${a.x},${a.y}C${a.x},${a.y + 30} ${b.x},${b.y - 30} ${b.x},${b.y}`, stroke: main ? "var(--good)" : "var(--dim)", "stroke-width": main ? 3 : 1, opacity: main ? 1 : .35 })); });
  const scores = [...new Set(members.filter(m => m.valid).map(m => m.score))].sort((a, b) => a - b), rank = s => { let lo = 0, hi = scores.length; while (lo < hi) { const mid = (lo + hi) >> 1; if (scores[mid] < s) lo = mid + 1; else hi = mid; } return scores.length > 1 ? lo / (scores.length - 1) : 1; };
  for (const m of members) {
    const p = at.get(m.number), good = !m.valid ? 0 : less && scores.length > 1 ? 1 - rank(m.score) : rank(m.score), node = sv("g", { class: "node", tabindex: 0, role: "button", "data-number": m.number, transform: `translate(${p.x},${p.y})`, "aria-label": `${m.id}, fitness ${num(m.score)}` });
    node.append(sv("circle", { r: m.number === D.best ? 12 : 9, fill: m.valid ? `hsl(${8 + 135 * Math.min(1, good)} 55% 50%)` : "var(--dim)", stroke: m.in_line ? "var(--good)" : "var(--card)", "stroke-width": 2 }), sv("title", {}, `${m.id}\nfitness ${num(m.score)}\n${m.made_by || ""}`));
    if (m.in_line) node.append(sv("text", { x: 16, y: 4 }, m.id.length > 18 ? m.id.slice(0, 17) + "…" : m.id));
    node.onclick = () => open(m.number); node.onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); open(m.number); } };
    g.append(node);
  }
  const spots = [...at.values()], x0 = Math.min(...spots.map(p => p.x)), x1 = Math.max(...spots.map(p => p.x)), y1 = rows.length * gapY - gapY;
  const show = () => g.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.k})`);
  const fit = () => { const w = box.clientWidth || 500, h = box.clientHeight || 460, k = Math.min(1.6, w / (x1 - x0 + 200), h / (y1 + 60)); view = { k, x: w / 2 - k * (x0 + x1 + 60) / 2, y: h / 2 - k * y1 / 2 }; show(); };
  const zoom = (by, px = box.clientWidth / 2, py = box.clientHeight / 2) => { moved = true; const k = Math.max(.02, Math.min(6, view.k * by)); view = { k, x: px - (px - view.x) * k / view.k, y: py - (py - view.y) * k / view.k }; show(); };
  // A tall tree begins at the best, large enough to be read.
  const focus = () => { fit(); const p = at.get(D.best); if (view.k < .45 && p) { const k = .6; view = { k, x: (box.clientWidth || 500) / 2 - k * (p.x + 30), y: (box.clientHeight || 460) - 40 - k * p.y }; show(); } };
  if (moved && view) show(); else focus();
  $("fit").onclick = () => { moved = false; fit(); }; $("in").onclick = () => zoom(1.4); $("out").onclick = () => zoom(1 / 1.4);
  box.onwheel = e => { e.preventDefault(); const r = box.getBoundingClientRect(); zoom(Math.exp(-e.deltaY / 400), e.clientX - r.left, e.clientY - r.top); };
  let from = null; box.onpointerdown = e => { from = { x: e.clientX - view.x, y: e.clientY - view.y, moved: false, id: e.pointerId }; };
  box.onpointermove = e => { if (!from) return; const x = e.clientX - from.x, y = e.clientY - from.y; if (!from.moved && Math.hypot(x - view.x, y - view.y) < 4) return; if (!from.moved) { from.moved = moved = true; box.setPointerCapture(from.id); box.classList.add("drag"); } view.x = x; view.y = y; show(); };
  box.onpointerup = box.onpointercancel = () => { from = null; box.classList.remove("drag"); };
  if (chosen) mark();
}
const mark = () => document.querySelectorAll(".node").forEach(n => n.classList.toggle("on", +n.dataset.number === chosen));

// What differs between two lines, word by word: for each word of both whether the other one has it, too; null if most differs.
const MOST_WORDS = 900, words = line => line.match(/[A-Za-z_0-9.]+|\s+|./gu) || [];
function compareWords(before, after) {
  const a = words(before), b = words(after), n = a.length, m = b.length;
  if (!n || !m || n > MOST_WORDS || m > MOST_WORDS) return null;
  const best = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  if (best[0][0] < .3 * Math.max(n, m)) return null;
  const inA = new Array(n).fill(false), inB = new Array(m).fill(false);
  for (let i = 0, j = 0; i < n && j < m;) { if (a[i] === b[j]) { inA[i++] = inB[j++] = true; } else if (best[i + 1][j] >= best[i][j + 1]) i++; else j++; }
  return [[a, inA], [b, inB]];
}
function fill(row, sign, [parts, same]) {
  row.append(sign); let k = 0;
  while (k < parts.length) { let end = k + 1; while (end < parts.length && same[end] === same[k]) end++; const text = parts.slice(k, end).join(""); row.append(same[k] ? text : el("b", {}, text)); k = end; }
}
function code(text, diff) {
  const pre = el("pre"), lines = text.replace(/\n$/, "").split("\n"), kind = l => l.startsWith("@@") || l.startsWith("---") || l.startsWith("+++") || l.startsWith("\\") ? "at" : l[0] === "+" ? "add" : l[0] === "-" ? "del" : "";
  for (let i = 0; i < lines.length;) {
    if (!diff || kind(lines[i]) !== "del") { const row = el("span"); row.textContent = lines[i]; if (diff) row.className = kind(lines[i]); pre.append(row); i++; continue; }
    const gone = [], come = []; while (i < lines.length && ["del", "at"].includes(kind(lines[i])) && lines[i][0] !== "@") { if (kind(lines[i]) === "del") gone.push(lines[i]); i++; } while (i < lines.length && kind(lines[i]) === "add") come.push(lines[i++]);
    const pairs = gone.map((line, k) => k < come.length ? compareWords(line.slice(1), come[k].slice(1)) : null);
    gone.forEach((line, k) => { const row = el("span", { class: "del" }); if (pairs[k]) fill(row, "-", pairs[k][0]); else row.textContent = line; pre.append(row); });
    come.forEach((line, k) => { const row = el("span", { class: "add" }); if (pairs[k]) fill(row, "+", pairs[k][1]); else row.textContent = line; pre.append(row); });
  }
  return pre;
}

// The card shows the best, whichever that is, until somebody opens another one.
async function open(number, scroll, byItself) {
  chosen = number; picked = !byItself; mark();
  const m = await details(number), card = $("card");
  if (!m || chosen !== number) return;
  card.replaceChildren(el("h3", {}, m.id));
  const rows = [["fitness", m.valid ? num(m.score) : "invalid: " + (m.reason || "")]];
  if (m.objectives.length > 1) rows.push(["objectives", m.objectives.map(num).join(", ")]);
  for (const [k, v] of Object.entries(m.components)) rows.push([k, num(v)]);
  rows.push(["generation", num(m.generation)], ["made by", m.made_by || "–"]); for (const [k, v] of Object.entries(m.notes)) rows.push([k, v]);
  if (m.fuel) rows.push(["cost", `${big(m.fuel)} fuel, ${span(m.time_ms / 1000)}` + (m.memory ? `, ${big(m.memory)} bytes` : "")]); if (m.error) rows.push(["error", m.error]);
  const table = el("table"); for (const [k, v] of rows) table.append(el("tr", {}, el("td", {}, k), el("td", {}, v)));
  if (m.parents.length) { const cell = el("td"); for (const p of m.parents) { const b = el("button", { type: "button" }, p.id); if (p.number && canOpen(p.number)) b.onclick = () => open(p.number); else b.disabled = true; cell.append(b, " "); } table.append(el("tr", {}, el("td", {}, "parents"), cell)); }
  card.append(table);
  const tabs = el("div", { class: "tabs" }), body = el("div"), choices = [["Source", () => m.source === null ? "The source is not in the store." : code(m.source)]];
  for (const p of m.parents) choices.push([`Diff from ${p.id}`, () => p.diff === null ? "The source of one of them is not in the store." : p.diff ? code(p.diff, true) : "The same source."]);
  const buttons = choices.map(([name, make]) => { const b = el("button", { type: "button" }, name); b.onclick = () => { buttons.forEach(o => o.setAttribute("aria-pressed", o === b)); body.replaceChildren(make()); }; return b; });
  tabs.append(...buttons); card.append(tabs, body); buttons[Math.min(1, m.parents.length ? 1 : 0)].click(); card.scrollTop = 0;
  if (scroll) $("tree").scrollIntoView({ block: "center" });
}
let canOpen = number => byNumber.has(number);

async function best() {
  const number = D.best, leader = D.leaders[0];
  if (number === null || !leader) { $("best-about").textContent = ""; $("best").textContent = "No individual was valid."; shownBest = null; return; }
  $("best-about").textContent = `${leader.id}, fitness ${num(leader.score)}, generation ${num(leader.generation)}, ${big(leader.fuel)} fuel.` + (leader.copies > 1 ? ` ${num(leader.copies)} individuals have this program.` : "");
  if (shownBest === number) return;
  shownBest = number;
  const m = await details(number);
  if (shownBest === number && m) $("best").replaceChildren(m.source === null ? "The source is not in the store." : code(m.source));
}

const fine = v => Number.isInteger(v) || Math.abs(v) >= 1e5 || Math.abs(v) < 1e-4 ? num(v) : String(+v.toPrecision(7)); // enough to tell the fittest apart
function factsOf(d) {
  return [["individuals", num(d.n_individuals)], ["best fitness", d.leaders.length ? num(d.leaders[0].score) : "–"], ["valid", d.n_individuals ? Math.floor(1000 * d.n_valid / d.n_individuals) / 10 + " %" : "–"], ["wall time", span(d.wall_s)], ["evaluations per second", d.wall_s > 0 ? num(+(d.n_evaluations / d.wall_s).toPrecision(3)) : "–"], ["fuel", big(d.fuel)]];
}
function texts() {
  document.title = D.title; $("title").textContent = D.title;
  $("about").textContent = `${new Date(D.started_at * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC · ${D.entry} · ${less ? "less" : "more"} is better` + (D.outcome === "killed" ? " · the engine was killed" : D.outcome === "open" ? " · still running" : "");
  $("facts").replaceChildren(...factsOf(D).map(([name, value]) => el("div", { class: "fact" }, el("b", {}, value), el("span", { class: "dim" }, name))));
  $("fitness-title").textContent = byGeneration() ? "Fitness by generation" : "Fitness over the run";
  $("top").replaceChildren(el("tr", {}, ...["", "fitness", "fuel", "generation"].map((t, i) => el("th", i ? { class: "n" } : {}, t))));
  for (const m of D.leaders) { const b = el("button", { type: "button" }, m.id); b.onclick = () => open(m.number, true); const name = el("td", {}, b); if (m.copies > 1) name.append(el("span", { class: "copies" }, `× ${num(m.copies)}`)); $("top").append(el("tr", {}, name, el("td", { class: "n" }, fine(m.score)), el("td", { class: "n" }, big(m.fuel)), el("td", { class: "n" }, num(m.generation)))); }
  $("top-about").textContent = D.leaders.some(m => m.copies > 1) ? "Equal programs are listed once, with how many individuals have them." : "";
  $("foot").textContent = `Written by evocell. Run ${D.run}, image ${(D.image || "").slice(0, 12)}.` + (D.nodes.length ? ` Guests ran on ${D.nodes.join(", ")}.` : "") + (D.n_left_out ? ` ${one(D.n_left_out, "evaluation")} of other tasks ${D.n_left_out === 1 ? "is" : "are"} left out.` : "");
}
const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const opens = i => D.points.number ? true : byId.has(D.points.id[i]), openPoint = i => open(D.points.number ? D.points.number[i] : byId.get(D.points.id[i]).number, true);
function draw() {
  $("theme").textContent = dark() ? "Light" : "Dark";
  if (D) { fitness(); deaths(); cost(); scatter(opens, openPoint); }
}
function show(model, { newTree = true } = {}) {
  D = model; less = D.direction === "minimize";
  texts(); draw(); if (newTree) tree(); best();
  if (D.best !== null && chosen !== D.best && !picked) open(D.best, false, true); else if (D.best === null) $("card").textContent = "Nobody to show.";
}
$("theme").onclick = () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; draw(); };
$("line").onclick = () => { firstOnly = !firstOnly; moved = false; $("line").setAttribute("aria-pressed", firstOnly); if (D) tree(); };
let width = innerWidth; addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); if (D) tree(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
const given = JSON.parse($("data").textContent);
if (!given.live) { show(given); document.documentElement.dataset.ready = "yes"; }
