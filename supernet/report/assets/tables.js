"use strict";
// The table of runs, the curves of those that it shows, and how two of them differ.
Page.draw.runs = (root, first) => {
  let data = first, order = null, down = false, metric = data.metrics[0] || null, words = "", chart = null;
  const marked = [];   // names of runs, at most two
  const search = Page.make("input", {type: "search", placeholder: "filter: gumbel val_accuracy>90", "aria-label": "filter", size: 34,
    oninput: () => { words = search.value; show(); }});
  const count = Page.make("span", {class: "soft"});
  const head = Page.make("tr", {}), body = Page.make("tbody", {});
  const pick = Page.make("select", {"aria-label": "metric", onchange: () => { metric = pick.value; curves(true); }});
  const curveBox = Page.make("div", {}), legend = Page.make("ul", {class: "legend"}), curveNote = Page.make("span", {class: "soft"}), diff = Page.make("div", {class: "diff"});
  root.append(Page.make("div", {class: "controls"}, search, count),
    Page.make("div", {class: "box runs", tabindex: 0}, Page.make("table", {}, Page.make("thead", {}, head), body)),
    diff, Page.make("h3", {}, "Curves"), Page.make("div", {class: "controls"}, Page.make("label", {}, "of ", pick), curveNote), curveBox, legend);

  const key = row => row.cells[0], short = row => key(row).replace(/(^|\/)\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_/, "$1");   // the date has a column
  const text = row => row.text ?? (row.text = [...row.cells.map(Page.number), ...Object.entries(row.options).map(([k, v]) => `${k}=${v}`)].join(" ").toLowerCase());
  const column = name => data.columns.findIndex(one => one.name.replace(/ /g, "_") === name);
  const compares = {">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b};
  function matches(row) {
    return words.toLowerCase().split(/\s+/).filter(Boolean).every(word => {
      const found = /^([^<>=]+)(>=|<=|>|<)(-?[\d.e+-]+)$/.exec(word), at = found ? column(found[1]) : -1;
      if (at >= 0 && found) return typeof row.cells[at] === "number" && compares[found[2]](row.cells[at], +found[3]);
      return text(row).includes(word);
    });
  }
  function sorted(rows) {
    if (order === null) return rows;
    const number = data.columns[order].kind === "number";
    return [...rows].sort((a, b) => {
      const x = a.cells[order], y = b.cells[order], none = v => v === null || v === undefined || v === "";
      if (none(x) || none(y)) return none(x) - none(y);   // what is not known comes last, whichever way
      return (down ? -1 : 1) * (number && typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", {numeric: true}));
    });
  }
  function heads() {
    head.replaceChildren(Page.make("th", {title: "mark two to see how they differ"}, "\u2194"), ...data.columns.map((one, n) => {
      const th = Page.make("th", {scope: "col", tabindex: 0, "aria-sort": order === n ? (down ? "descending" : "ascending") : "none"},
                           one.name + (order === n ? (down ? " \u2193" : " \u2191") : ""));
      const turn = () => {
        if (order === n) down = !down; else { order = n; down = one.kind === "number"; }
        heads(); show();
      };
      th.addEventListener("click", turn);
      th.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); } });
      return th;
    }));
  }
  function line(row) {
    const box = Page.make("input", {type: "checkbox", "aria-label": `mark ${key(row)}`, onchange: () => mark(key(row), box.checked)});
    box.checked = marked.includes(key(row));
    const cells = row.cells.map((value, n) => {
      const kind = data.columns[n].kind, name = data.columns[n].name;
      const td = Page.make("td", {class: n === 0 ? "run" : kind, title: n === 0 ? key(row) : null});
      if (n === 0) td.append(row.link ? Page.make("a", {href: row.link}, short(row)) : short(row));
      else if (name === "state") td.append(Page.make("span", {class: `chip ${/^\w+$/.test(value) ? value : ""}`}, String(value)));
      else td.textContent = kind === "number" ? Page.number(value) : value === null ? "" : String(value);
      return td;
    });
    const tr = Page.make("tr", {class: box.checked ? "chosen" : null, onmouseenter: () => chart && chart.focus(key(row)), onmouseleave: () => chart && chart.focus(null)},
                         Page.make("td", {}, box), ...cells);
    return tr;
  }
  let shown = [];
  const lines = new Map();   // a row is made once: to sort and to filter moves what is there
  function made(row) {
    const known = lines.get(row);
    if (known) return known;
    const fresh = line(row);
    lines.set(row, fresh);
    return fresh;
  }
  function show() {
    shown = sorted(data.rows.filter(matches));
    body.replaceChildren(...shown.map(made));
    count.textContent = shown.length === data.rows.length ? `${shown.length} runs` : `${shown.length} of ${data.rows.length} runs`;
    curves(false);
  }
  function mark(name, on) {
    if (on) marked.push(name); else marked.splice(marked.indexOf(name), 1);
    while (marked.length > 2) marked.shift();
    for (const row of data.rows) {
      const tr = lines.get(row);
      if (!tr) continue;
      tr.classList.toggle("chosen", marked.includes(key(row)));
      tr.querySelector("input").checked = marked.includes(key(row));
    }
    differences();
  }

  // Curves: a colour a way of searching, so that seeds stand together.
  function curves(fresh) {
    pick.replaceChildren(...data.metrics.map(name => Page.make("option", {value: name}, name.replace(/_/g, " "))));
    pick.value = metric;
    const ways = [...new Set(data.rows.map(row => row.cells[1]))];
    const colour = row => {
      const n = ways.indexOf(row.cells[1]);
      return ways.length <= 8 ? Page.colour(`--s${n}`) : `hsl(${(n * 137.5) % 360} 60% ${matchMedia("(prefers-color-scheme: dark)").matches ? 68 : 42}%)`;
    };
    const lines = shown.filter(row => row.curves[metric]).map(row => ({name: key(row), x: row.curves[metric][0], y: row.curves[metric][1], colour: colour(row)}));
    const present = new Map(   // of what is shown
      shown.filter(row => row.curves[metric]).map(row => [row.cells[1], colour(row)]));
    legend.replaceChildren(...(present.size > 1 && present.size <= 24 ? [...present].map(([way, hue]) => {
      const mark = Page.make("i", {});
      mark.style.background = hue;
      return Page.make("li", {}, mark, way || "as by default");
    }) : []));
    curveNote.textContent = lines.length ? `${lines.length} runs${ways.length > 1 ? ", a colour each set of options" : ""}; the line next to the pointer is named` : "no run shown has it";
    const made = {title: (metric || "").replace(/_/g, " "), unit: "", lines};
    if (!lines.length) { curveBox.hidden = true; return; }
    curveBox.hidden = false;
    if (chart && !fresh) chart.update(made);
    else {
      if (chart) chart.gone();
      const place = Page.make("div", {class: "chart"});
      curveBox.append(place);
      chart = Page.chart(place, made, {tall: true, crowd: true, unmarked: true, sync: "runs"});
    }
  }

  function differences() {
    diff.replaceChildren();
    if (marked.length < 2) return;
    const [a, b] = marked.map(name => data.rows.find(row => key(row) === name));
    if (!a || !b) return;
    const keys = [...new Set([...Object.keys(a.options), ...Object.keys(b.options)])].filter(k => a.options[k] !== b.options[k]).sort();
    const cell = (value, side) => Page.make("td", {class: side}, value === undefined ? "\u2013" : value);
    diff.append(Page.make("h3", {}, "How they differ"),
      Page.make("div", {class: "box tall", tabindex: 0}, Page.make("table", {}, Page.make("tr", {}, Page.make("th", {scope: "col"}, "option"),
        Page.make("th", {scope: "col", class: "a"}, short(a)), Page.make("th", {scope: "col", class: "b"}, short(b))),
        ...(keys.length ? keys.map(k => Page.make("tr", {}, Page.make("th", {scope: "row"}, k), cell(a.options[k], "a"), cell(b.options[k], "b")))
                        : [Page.make("tr", {}, Page.make("td", {colspan: 3}, "no option differs"))]))));
    Page.cellsBeside(diff, data.cells[a.digest] || [], data.cells[b.digest] || []);
  }

  heads(); show(); curves(true);
  return {update(fresh) {
    const heading = JSON.stringify(data.columns);
    data = fresh;
    lines.clear();
    if (metric === null || !data.metrics.includes(metric)) metric = data.metrics[0] || null;
    if (JSON.stringify(data.columns) !== heading) { order = null; heads(); }
    show(); differences();
  }};
};

// The cells of two architectures in one drawing, what only one of them has in its colour; of different shapes beside each other.
Page.cellsBeside = (root, a, b) => {
  for (const kind of new Set([...a, ...b].map(one => one.kind))) {
    const x = a.find(one => one.kind === kind), y = b.find(one => one.kind === kind);
    const box = Page.make("div", {class: "box figure arcbox", tabindex: 0});
    root.append(Page.make("h3", {}, `${kind}: `, Page.make("span", {class: "a"}, "first only"), ", ", Page.make("span", {class: "b"}, "second only"), ", both"), box);
    if (x && y && x.chain && y.chain) Page.chainsBeside(box, x, y);
    else if (x && y && JSON.stringify([x.nodes, x.inputs, x.outputs]) === JSON.stringify([y.nodes, y.inputs, y.outputs])) Page.union(box, x, y);
    else for (const one of [x, y]) if (one) Page.arcs(box, one)(one.ops.map((text, e) => ({family: one.families[e], text, width: 2, classes: "kept"})));
  }
};

Page.union = (box, x, y) => {
  const edges = [], states = [];
  const names = one => one.edges.map(([s, d], e) => `${s} ${d} ${one.ops[e]}`);
  const mine = names(x), theirs = names(y);
  const rest = [...theirs];
  for (const [e, name] of mine.entries()) {
    const at = rest.indexOf(name);
    if (at >= 0) rest.splice(at, 1);
    edges.push(x.edges[e]);
    states.push({family: at >= 0 ? "both" : "first", text: x.ops[e], width: at >= 0 ? 1.6 : 2.6, classes: "kept"});
  }
  for (const name of rest) {
    const e = theirs.indexOf(name);
    edges.push(y.edges[e]);
    states.push({family: "second", text: y.ops[e], width: 2.6, classes: "kept gone"});
  }
  Page.arcs(box, {...x, edges})(states);
};

Page.chainsBeside = (box, x, y) => {
  const length = Math.max(x.ops.length, y.ops.length);
  box.append(Page.make("table", {}, Page.make("tr", {}, ...["layer", "first", "second"].map(name => Page.make("th", {scope: "col"}, name))),
    ...Array.from({length}, (_, n) => {
      const same = x.ops[n] === y.ops[n];
      return Page.make("tr", {}, Page.make("th", {scope: "row"}, String(n + 1)), Page.make("td", {class: same ? null : "a"}, x.ops[n] ?? "\u2013"),
                       Page.make("td", {class: same ? null : "b"}, y.ops[n] ?? "\u2013"));
    })));
};
