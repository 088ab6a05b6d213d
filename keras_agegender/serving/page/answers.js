// What the model said about one face, as questions with answers: plain values, no page.

const NOUNS = { female: ["girl", "woman"], male: ["boy", "man"] };
const GROWN_UP = 15; // years, where a boy is called a man

/** Names a face by its answers: "woman, 25-32". */
export function whoIs(face) {
  const child = face.age_years !== null && face.age_years < GROWN_UP;
  const noun = NOUNS[face.gender]?.[child ? 0 : 1] ?? face.gender;
  const known = [noun, face.age_group].filter(Boolean);
  const extra = Object.entries(face.extra).map(([name]) => `${name} ${answerOf(face, name)}`);
  return (known.length ? known : extra.slice(0, 2)).join(", ") || "face";
}

/**
 * What is drawn of a face, and the outputs that are left over.
 *
 * A question has a `title` and what the model said: `rows` of [class, probability], `years`
 * (a probability for each) or a `number`; where there are any, the `set` of calibrated
 * answers and in how many of 100 cases it is `right`.
 */
export function questions(face, { outputs, coverage = null }) {
  const drawn = [];
  const used = new Set();
  const add = (name, question) => {
    used.add(name);
    drawn.push(question);
  };
  if (face.male_probability !== null) {
    const rows = [["female", 1 - face.male_probability], ["male", face.male_probability]];
    add("gender", { title: "Gender", rows, set: face.gender_set, right: coverage });
  }
  if (face.age_probabilities) {
    const rows = Object.entries(face.age_probabilities);
    drawn.push({ title: "Age group", rows, set: face.age_set, right: coverage });
  }
  for (const [name, said] of Object.entries(face.heads)) {
    const spec = outputs[name] ?? {};
    if (spec.kind === "years") {
      add(name, { title: `${titleOf(name)} in years`, years: said });
    } else if (name in face.extra) {
      add(name, extraQuestion(face, name, said, spec));
    } else if (String(said) === String(Object.values(face.age_probabilities ?? {}))) {
      used.add(name); // the age groups' own output, which is drawn already
    }
  }
  // An ordinal question has an output for each of its thresholds, and one answer.
  for (const name of Object.keys(face.extra)) {
    if (!used.has(name)) add(name, { title: titleOf(name), text: answerOf(face, name) });
  }
  const raw = Object.entries(face.heads)
    .filter(([name]) => !used.has(name))
    .map(([name, said]) => ({ title: name, rows: listed([said].flat(), outputs[name]) }));
  return { drawn, raw };
}

function extraQuestion(face, name, said, { kind, classes }) {
  const title = titleOf(name);
  if (kind === "binary" || name in face.binary) {
    const [no, yes] = classes?.length ? classes : ["no", "yes"];
    return { title, rows: [[no, 1 - said], [yes, said]] };
  }
  if (!Array.isArray(said)) return { title, number: face.extra[name] };
  if (kind !== "coral" && kind !== "corn") return { title, rows: listed(said, { classes }) };
  // Units say whether the class is above k; those of corn, if it is above k - 1.
  let above = 1;
  const shares = said.map((p) => (above = kind === "corn" ? above * p : p));
  const rows = shares.map((p, k) => [`above ${classes?.[k] ?? k}`, p]);
  return { title, text: answerOf(face, name), rows, thresholds: true };
}

function answerOf(face, name) {
  const value = face.binary[name] ?? face.extra[name];
  return typeof value === "number" ? String(Number(value.toPrecision(3))) : value;
}

function listed(values, spec) {
  return values.map((value, i) => [spec?.classes?.[i] ?? String(i + 1), value]);
}

function titleOf(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}
