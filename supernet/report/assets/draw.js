"use strict";
// What all drawings share. Text from runs reaches the page as text nodes and attributes only, never as HTML.
const Page = {draw: {}, charts: new Set(), listeners: [], epoch: null};

Page.make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
};

Page.svg = (tag, attributes = {}, text = null) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
};

Page.colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
Page.series = n => () => Page.colour(`--s${n % 8}`);

Page.number = value => {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(3);
  return String(+value.toPrecision(5));
};

// Between the ticks of an axis there is little room: 38160000 is 38.2M.
Page.tick = value => value === null ? "" : Math.abs(value) >= 1e5 && Math.abs(value) < 1e15
  ? new Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 4}).format(value) : Page.number(value);

// The epoch that the slider stands at, told to whoever shows something of it.
Page.at = epoch => {
  Page.epoch = epoch;
  for (const chart of Page.charts) chart.mark();
};
