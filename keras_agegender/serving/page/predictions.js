// The predictions for one face as titles, bars and texts: plain values, no elements.

const NOUNS = { female: ["girl", "woman"], male: ["boy", "man"] };
const ADULT = 15; // years

/** Names a face by its predictions: "woman, 25-32". */
export function nameOf(face) {
  const child = face.age_years !== null && face.age_years < ADULT;
  const noun = NOUNS[face.gender]?.[child ? 0 : 1] ?? face.gender;
  const known = [noun, face.age_group].filter(Boolean);
  const extra = Object.keys(face.extra).map((name) => `${name} ${textOf(face, name)}`);
  return (known.length ? known : extra.slice(0, 2)).join(", ") || "face";
}

/**
 * Returns the charts of a face, and its remaining outputs.
 *
 * A chart has a `title` and `rows` of [class, probability], `years` (a probability for
 * each), a `number` or a `text`; from a calibrated model also the prediction `set` and its
 * `coverage`.
 */
export function charts(face, { outputs, coverage = null }) {
  const drawn = [];
  const used = new Set();
  const add = (name, chart) => {
    used.add(name);
    drawn.push(chart);
  };
  if (face.male_probability !== null) {
    const rows = [["female", 1 - face.male_probability], ["male", face.male_probability]];
    add("gender", { title: "Gender", rows, set: face.gender_set, coverage });
  }
  if (face.age_probabilities) {
    const rows = Object.entries(face.age_probabilities);
    drawn.push({ title: "Age group", rows, set: face.age_set, coverage });
  }
  for (const [name, values] of Object.entries(face.heads)) {
    const output = outputs[name] ?? {};
    if (output.values === "years") {
      add(name, { title: `${titleOf(name)} in years`, years: values });
    } else if (name in face.extra) {
      add(name, { title: titleOf(name), ...content(face, name, values, output) });
    } else if (String(values) === String(Object.values(face.age_probabilities ?? {}))) {
      used.add(name); // the output of the age groups, which is drawn already
    }
  }
  // An ordinal head has an output for each threshold, and one prediction.
  for (const name of Object.keys(face.extra)) {
    if (!used.has(name)) add(name, { title: titleOf(name), text: textOf(face, name) });
  }
  const raw = Object.entries(face.heads)
    .filter(([name]) => !used.has(name))
    .map(([name, values]) => ({ title: name, rows: listed([values].flat(), outputs[name]) }));
  return { drawn, raw };
}

/** What a chart shows, by what the server says that the values of an output are. */
const CONTENT = {
  probability: (face, name, value, [no, yes] = ["no", "yes"]) =>
    ({ rows: [[no, 1 - value], [yes, value]] }),
  number: (face, name) => ({ number: face.extra[name] }),
  probabilities: (face, name, values, classes) => ({ rows: listed(values, { classes }) }),
  ranks: (face, name, values, classes) => ({
    text: textOf(face, name),
    rows: values.map((share, k) => [`above ${classes?.[k] ?? k}`, share]),
    thresholds: true,
  }),
  conditional_ranks: (face, name, values, classes) => {
    let above = 1;
    return CONTENT.ranks(face, name, values.map((share) => (above *= share)), classes);
  },
};

function content(face, name, values, output) {
  const several = Array.isArray(values) ? "probabilities" : "number";
  const shown = output.values ?? (name in face.binary ? "probability" : several);
  return CONTENT[shown](face, name, values, output.classes ?? undefined);
}

function textOf(face, name) {
  const value = face.binary[name] ?? face.extra[name];
  return typeof value === "number" ? String(Number(value.toPrecision(3))) : value;
}

function listed(values, output) {
  return values.map((value, i) => [output?.classes?.[i] ?? String(i + 1), value]);
}

function titleOf(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}
