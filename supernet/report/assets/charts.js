"use strict";
const WHOLE = [1, 2, 5].flatMap(n => [0, 1, 2, 3, 4, 5, 6].map(e => n * 10 ** e)).sort((a, b) => a - b);   // between the ticks of epochs
const STEPS = uPlot.paths.stepped({align: 1});   // of what stays as it is until it changes

// Line charts by uPlot. A chart is {title, unit, lines: [{name, x, y}]}; a null in y is a gap, an x that another line has is none. A line may
// say its colour, or its place among the colours (tone), be faint, or hold its value to the next x (stepped). band: two lines, filled between.
Page.chart = (root, data, options = {}) => {
  const small = options.small, height = small ? 118 : options.tall ? 320 : 210;
  const holder = Page.make("div", {});
  const tip = Page.make("div", {class: "tip", hidden: true});
  let plot = null, nearest = null, log = false, shown = data, now = null, width = 0;
  const button = Page.make("button", {type: "button", "aria-pressed": "false", title: "logarithmic scale", onclick: () => {
    log = !log;
    button.setAttribute("aria-pressed", String(log));
    build();
  }}, "log");
  root.append(Page.make("div", {class: "title"}, Page.make("b", {}, data.title), small ? null : Page.make("span", {}, data.unit || ""),
                        small || options.range ? null : button), holder);

  const joined = () => shown.lines.length ? uPlot.join(shown.lines.map(line => [line.x, line.y])) : [[]];
  const positive = () => shown.lines.every(line => line.y.every(value => value === null || value > 0));
  const axis = () => ({stroke: () => Page.colour("--soft"), font: `${small ? 10 : 11}px system-ui, sans-serif`,
                       grid: {stroke: () => Page.colour("--line"), width: 1}, ticks: {stroke: () => Page.colour("--line"), width: 1, size: 4}});

  function build() {
    const hidden = plot ? plot.series.map(series => !series.show) : [];
    if (plot) plot.destroy();
    width = Math.max(140, holder.clientWidth);
    button.hidden = !positive();
    const points = shown.lines.length && Math.max(...shown.lines.map(line => line.x.length)) < 3;
    plot = new uPlot({
      width, height, cursor: {sync: {key: options.sync || "epochs"}, drag: {x: true, y: false}, points: {size: 6},
               focus: {prox: options.crowd ? 24 : -1}}, focus: {alpha: .18},
      legend: {show: !small && !options.crowd, live: true}, padding: small ? [6, 6, 0, 0] : [8, 16, 0, 0],
      scales: {x: {time: false, range: (u, low, high) => low === high ? [low - 1, high + 1] : [low, high]},
               y: log && positive() ? {distr: 3} : options.range ? {range: () => options.range()} : {}},
      axes: [{...axis(), size: small ? 24 : 30, space: small ? 34 : 50, ...(options.free ? {} : {incrs: WHOLE}), values: (u, ticks) => ticks.map(Page.tick)},
             {...axis(), size: small ? 34 : 52, space: small ? 26 : 34, values: (u, ticks) => ticks.map(Page.tick)}],
      series: [{label: options.x || "epoch", value: (u, v) => Page.number(v)}, ...shown.lines.map((line, n) => ({
        label: line.name, stroke: line.colour ? () => line.colour : Page.series(line.tone ?? n), width: line.faint ? .6 : small ? 1.2 : 1.6, show: !hidden[n + 1],
        paths: line.stepped ? STEPS : undefined,
        points: {show: Boolean(points), size: 5}, value: (u, v) => Page.number(v)}))],
      bands: shown.band ? [{series: shown.band.map(n => n + 1), fill: () => `${Page.series(shown.lines[shown.band[0]].tone ?? shown.band[0])()}2e`}] : [],
      hooks: {ready: [u => { now = Page.make("div", {class: "now", hidden: true}); u.over.append(now, tip); rest(u); }], setScale: [() => mark()],
              setData: [rest], setCursor: [options.crowd ? name : rest], setSeries: options.crowd ? [(u, n) => { nearest = n; name(u); }] : []},
    }, joined(), holder);
    mark();
  }

  function rest(u) {   // away from the pointer the legend says the last values
    if (!(u.cursor.left >= 0) && u.data[0] && u.data[0].length) u.setLegend({idx: u.data[0].length - 1}, false);
  }

  function name(u) {   // of the line next to the pointer
    const line = nearest ? shown.lines[nearest - 1] : null, {left, top, idx} = u.cursor;
    tip.hidden = !line || left < 0 || left === undefined;
    if (tip.hidden) return;
    const value = u.data[nearest][idx];
    tip.textContent = `${line.name}\n${Page.number(u.data[0][idx])}: ${Page.number(value)}`;
    tip.style.left = left > width / 2 ? "" : `${left + 12}px`;
    tip.style.right = left > width / 2 ? `${u.over.clientWidth - left + 12}px` : "";
    tip.style.top = `${Math.max(0, Math.min(top, height - 90))}px`;
  }

  function mark() {
    if (!plot || !now) return;
    const at = Page.epoch === null || options.unmarked ? NaN : plot.valToPos(Page.epoch, "x");
    now.hidden = !(at >= 0 && at <= plot.over.clientWidth);
    if (!now.hidden) now.style.left = `${at}px`;
  }

  const chart = {
    mark, focus(label) {
      if (!plot) return;
      const n = label === null ? null : shown.lines.findIndex(line => line.name === label) + 1;
      plot.setSeries(n || null, {focus: true});
      tip.hidden = true;
    }, rebuild: () => plot && build(),
    update(fresh) {
      const same = fresh.lines.length === shown.lines.length && fresh.lines.every((line, n) => line.name === shown.lines[n].name);
      shown = fresh;
      if (plot && same) plot.setData(joined());
      else if (plot) build();
    },
    fit() { if (plot && holder.clientWidth && Math.abs(holder.clientWidth - width) > 1) { width = holder.clientWidth; plot.setSize({width, height}); } },
    gone() { Page.charts.delete(chart); if (plot) plot.destroy(); root.remove(); },
  };
  Page.charts.add(chart);
  Page.seen(root, build);
  return chart;
};

// Calls what draws once its place comes near the window.
Page.seen = (root, draw) => {
  const watch = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watch.disconnect();
    draw();
  }, {rootMargin: "400px"});
  watch.observe(root);
};

Page.chartsIn = (root, data, options = {}) => {
  const grid = Page.make("div", {class: options.small ? "charts many" : "charts"});
  root.append(grid);
  const made = new Map();
  const update = fresh => {
    const titles = new Set(fresh.map(one => one.title));
    for (const [title, chart] of made) if (!titles.has(title)) { chart.gone(); made.delete(title); }
    for (const one of fresh) {
      if (made.has(one.title)) made.get(one.title).update(one);
      else {
        const place = Page.make("div", {});
        grid.append(place);
        made.set(one.title, Page.chart(place, one, options));
      }
    }
  };
  update(data);
  return {update};
};

Page.draw.charts = (root, data) => Page.chartsIn(root, data);

new ResizeObserver(() => { for (const chart of Page.charts) chart.fit(); }).observe(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const chart of Page.charts) chart.rebuild(); });
