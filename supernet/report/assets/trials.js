"use strict";
// The page of a search by trials: curves with a switch between budgets, the cells on the way to the best, the table of trials.
Page.draw.search = (root, first) => {
  let data = first, axis = null, charts = [];
  const controls = Page.make("div", {class: "controls"}), above = Page.make("div", {class: "charts"}), below = Page.make("div", {});
  root.append(controls, above, below);
  const options = {unmarked: true, free: true};
  const rest = Page.chartsIn(below, data.charts, {...options, x: "trial", sync: "generations"});
  function best(one) {
    const [name, x] = one.axes.find(([known]) => known === axis) || one.axes[0];
    const after = one.y.filter((_, n) => x[n] >= .02 * x[x.length - 1]), low = Math.min(...after), high = Math.max(...after);
    const range = [low - .06 * (high - low || 1), high + .06 * (high - low || 1)];   // the first trials would fill the picture
    return {made: {title: `Best ${one.name} so far`, unit: `against ${name}`, lines: [{name: one.name, x, y: one.y, stepped: true, tone: 0}]}, name, range};
  }
  function show() {
    const names = data.anytime.length ? data.anytime[0].axes.map(([name]) => name) : [];
    if (!names.includes(axis)) axis = names[0] ?? null;
    controls.replaceChildren(...(names.length > 1 ? ["best so far against", ...names.map(name =>
      Page.make("button", {type: "button", "aria-pressed": String(name === axis), onclick: () => { axis = name; show(); }}, name))] : []));
    for (const chart of charts.splice(0)) chart.gone();
    for (const one of data.anytime.filter(known => known.axes.length)) {
      const place = Page.make("div", {}), {made, name, range} = best(one);
      above.append(place);
      charts.push(Page.chart(place, made, {...options, x: name, sync: "budget", range: () => range}));
    }
  }
  show();
  return {update(fresh) { data = fresh; show(); rest.update(data.charts); }};
};

// An architecture by its parts (`trial_cells.Architectures`): a drawing a kind of cell, strong where `strong` says so.
Page.architecture = (root, data, row, strong) => {
  if (!data.drawn) { root.append(Page.make("p", {}, Page.told(data, row))); return; }
  for (const [kind, frame] of data.frames.entries()) {
    const parts = row.map(n => [data.parts[n], n]).filter(([part]) => part[0] === kind);
    if (!parts.length) continue;
    const box = Page.make("div", {class: "box figure arcbox", tabindex: 0});
    if (data.frames.length > 1) root.append(Page.make("small", {class: "soft"}, frame.kind));
    root.append(box);
    const states = parts.map(([part, n]) => ({family: part[5], text: part[4], share: strong(n) ? 1 : .35, kept: true, width: strong(n) ? 2.6 : 1.3,
                                              classes: part[5] === "none" ? "left" : strong(n) ? "kept" : ""}));
    (frame.chain ? Page.chain(box, parts.length) : Page.arcs(box, {...frame, edges: parts.map(([part]) => [part[1], part[2]])}))(states);
  }
};

Page.told = (data, row) => {   // where every architecture has the same edges, by its ops alone
  const fixed = data.fixed ?? (data.fixed = new Set(data.rows.map(one => one.map(n => data.parts[n].slice(0, 3).join(" ")).join("|"))).size <= 1);
  return row.map(n => fixed ? data.parts[n][4] : `${data.parts[n][4]} ${data.parts[n][3]}`).join(", ");
};

Page.draw.lineage = (root, first) => {
  const strip = Page.make("div", {class: "lineage", tabindex: 0});
  root.append(strip);
  const show = data => strip.replaceChildren(...data.rows.map((row, n) => {
    const before = n ? new Set(data.rows[n - 1]) : new Set(), figure = Page.make("figure", {}, Page.make("figcaption", {}, data.titles[n]));
    Page.architecture(figure, data, row, part => n > 0 && !before.has(part));
    return figure;
  }));
  show(first);
  return {update: show};
};

Page.draw.trials = (root, first) => {
  const tall = 28;   // of a row, in pixels: only those in sight are made
  let data = first, order = null, down = false, words = "", shown = [], texts = [], picked = null, drawn = "";
  const search = Page.make("input", {type: "search", placeholder: "filter", "aria-label": "filter", size: 34, oninput: () => { words = search.value; box.scrollTop = 0; filter(); }});
  const count = Page.make("span", {class: "soft"}), head = Page.make("tr", {}), body = Page.make("tbody", {}), detail = Page.make("div", {class: "detail"});
  const box = Page.make("div", {class: "box runs trials", tabindex: 0, onscroll: () => rows(false)},
                        Page.make("table", {}, Page.make("thead", {}, head), body));
  root.append(Page.make("div", {class: "controls"}, search, count), box, detail);

  const value = (column, n) => column.kind === "text" ? column.words[column.values[n]] : column.values[n];
  const text = n => texts[n] ?? (texts[n] = [...data.columns.map(column => column.kind === "text" ? value(column, n) : Page.number(value(column, n))),
                                             Page.told(data, data.rows[n])].join(" ").toLowerCase());
  const compares = {">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b};
  function filter() {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean).map(word => {
      const found = /^([^<>=]+)(>=|<=|>|<)(-?[\d.e+-]+)$/.exec(word);
      const column = found && data.columns.find(one => one.kind === "number" && one.name.toLowerCase().replace(/ /g, "_") === found[1]);
      return column ? n => typeof column.values[n] === "number" && compares[found[2]](column.values[n], +found[3]) : n => text(n).includes(word);
    });
    shown = data.rows.map((_, n) => n).filter(n => wanted.every(holds => holds(n)));
    count.textContent = shown.length === data.rows.length ? `${shown.length} trials` : `${shown.length} of ${data.rows.length} trials`;
    sort();
  }
  function sort() {
    if (order !== null) {
      const column = data.columns[order], none = v => v === null || v === undefined || v === "";
      const numbers = column.kind === "number", keys = shown.map(n => value(column, n)), places = shown.map((_, n) => n);
      const compared = new Intl.Collator("en", {numeric: true}).compare;
      places.sort((i, j) => none(keys[i]) || none(keys[j]) ? none(keys[i]) - none(keys[j]) || i - j   // what is not known comes last, whichever way
        : (down ? -1 : 1) * (numbers ? keys[i] - keys[j] : compared(keys[i], keys[j])) || i - j);
      shown = places.map(n => shown[n]);
    }
    rows(true);
  }
  function heads() {
    head.replaceChildren(...data.columns.map((one, n) => {
      const th = Page.make("th", {scope: "col", tabindex: 0, "aria-sort": order === n ? (down ? "descending" : "ascending") : "none"},
                           one.name + (order === n ? (down ? " \u2193" : " \u2191") : ""));
      const turn = () => {
        if (order === n) down = !down; else { order = n; down = one.kind === "number" && n > 0; }
        heads(); filter();
      };
      th.addEventListener("click", turn);
      th.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); } });
      return th;
    }), Page.make("th", {scope: "col"}, "architecture"));
  }
  function rows(fresh) {
    const room = Math.ceil((box.clientHeight || 480) / tall), last = Math.max(0, shown.length - room);   // fewer rows may be left than were scrolled over
    const start = Math.max(0, Math.min(last, Math.floor(box.scrollTop / tall)) - 10);
    const end = Math.min(shown.length, start + room + 20), now = `${start} ${end}`;
    if (!fresh && now === drawn) return;
    drawn = now;
    const gap = many => Page.make("tr", {class: "gap", style: `height:${many * tall}px`}, Page.make("td", {colspan: data.columns.length + 1}));
    body.replaceChildren(gap(start), ...shown.slice(start, end).map(n => {
      const go = () => pick(n);
      return Page.make("tr", {class: picked === n ? "chosen" : null, tabindex: 0, onclick: go, onkeydown: event => { if (event.key === "Enter") go(); }},
        ...data.columns.map(column => {
          const known = value(column, n);
          return column.kind === "number" ? Page.make("td", {class: "number"}, Page.number(known)) : Page.make("td", {title: known || null}, known);
        }), Page.make("td", {class: "ops"}, Page.told(data, data.rows[n])));
    }), gap(shown.length - end));
  }
  function pick(n) {
    picked = picked === n ? null : n;
    rows(true);
    detail.replaceChildren();
    if (picked === null) return;
    detail.append(Page.make("h3", {}, `Trial ${Page.number(value(data.columns[0], n))}`));
    Page.architecture(detail, data, data.rows[n], () => true);
  }
  heads(); filter();
  return {update(fresh) {
    const heading = JSON.stringify(data.columns.map(one => one.name));
    data = fresh; texts = [];
    if (JSON.stringify(data.columns.map(one => one.name)) !== heading) { order = null; heads(); }
    filter();
  }};
};
