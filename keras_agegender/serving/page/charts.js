// Charts as elements: bars of classes, a curve of years, or a number.

const SVG = "http://www.w3.org/2000/svg";

/** Draws a chart of `predictions.js`. */
export function draw(chart) {
  const section = document.createElement("section");
  section.append(element("h3", chart.title));
  if (chart.set) section.append(setOf(chart));
  if (chart.text) section.append(element("p", chart.text, "number"));
  if (chart.rows) section.append(bars(chart));
  if (chart.years) section.append(years(chart.years));
  if (chart.number !== undefined) {
    section.append(element("p", String(Number(chart.number.toPrecision(4))), "number"));
  }
  return section;
}

/** "15-20 or 25-32, correct for 90 % of faces". Age groups are neighbors. */
function setOf({ set, coverage }) {
  const between = set.length === 2 ? " or " : " to ";
  const names = set.length < 2 ? set[0] : `${set[0]}${between}${set.at(-1)}`;
  const share = coverage ? `, correct for ${Math.round(100 * coverage)} % of faces` : ", calibrated";
  const line = element("p", "", "set");
  line.append(element("b", names), share);
  return line;
}

function bars({ title, rows, set, thresholds }) {
  const table = element("table", "");
  table.setAttribute("aria-label", title);
  const best = thresholds ? -1 : rows.reduce((a, [, p], i) => (p > rows[a][1] ? i : a), 0);
  rows.forEach(([name, share], index) => {
    const row = table.insertRow();
    if (index === best && rows.length > 1) row.className = "best";
    row.classList.toggle("member", set?.includes(name) ?? false);
    const head = element("th", name);
    head.scope = "row";
    const track = element("div", "", "track");
    const bar = element("div", "", "bar");
    bar.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    track.append(bar);
    row.append(head);
    row.insertCell().append(track);
    row.insertCell().textContent = percent(share);
  });
  return table;
}

function percent(share) {
  if (share < 0 || share > 1) return String(Number(share.toPrecision(3))); // not a probability
  if (share > 0 && share < 0.005) return "< 1 %";
  if (share < 1 && share > 0.995) return "> 99 %";
  return `${Math.round(100 * share)} %`;
}

/** A bar for each year, with a label at every twentieth. */
function years(shares) {
  const [width, height, floor] = [404, 96, 80];
  const step = (width - 20) / shares.length;
  const highest = Math.max(...shares);
  const likeliest = shares.indexOf(highest);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "years", role: "img",
    "aria-label": `Probability of each year of age, highest at ${likeliest}` });
  shares.forEach((share, year) => {
    const tall = ((floor - 4) * share) / highest;
    const x = 10 + year * step;
    svg.append(drawn("rect", { x, y: floor - tall, width: step * 0.8, height: tall }));
    if (year % 20) return;
    const label = drawn("text", { x: x + step / 2, y: height - 2 });
    label.textContent = year;
    svg.append(label);
  });
  svg.append(drawn("line", { x1: 10, x2: width - 10, y1: floor + 0.5, y2: floor + 0.5 }));
  return svg;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}
