/* What is right and wrong in a frame at a score: found, missed, wrong, another class; and where two runs differ. */

const STATES = {
  found: "found",
  missed: "missed",
  wrong: "wrong",
  confused: "wrong class",
};
// Runs differ where a box is in one of them only, or moved [m, pixels] or changed its score by more than this.
const MOVED = { boxes3d: 0.1, boxes2d: 2 };
const RESCORED = 0.05;

/** The least score of a class that counts in a run: one for all, or that of each class's best F1. */
function leastScore(head, run, label, settings) {
  return settings.best ? head.thresholds[run][label] : settings.score;
}

/** Per kind of frame, its items: {table, index, label, score, state, distance, differs}. */
function judge(head, frame, settings) {
  if (head.kind === "classes") return judgeAnswers(head, frame);
  if (head.kind === "labels") return judgeLabels(head, frame);
  if (head.kind === "boxes3d" || head.kind === "boxes2d") return judgeBoxes(head, frame, settings);
  return [];
}

function judgeAnswers(head, frame) {
  const said = frame.said;
  const state = said[0] === frame.truth ? "found" : "wrong";
  const differs = said.length > 1 && said[1] !== said[0] ? `${head.runs[1]} says ${head.classes[said[1]]}` : "";
  return [{ table: "shown", index: 0, label: frame.truth, score: frame.answers[0][said[0]], state, distance: 0, differs }];
}

/** A class of a frame counts as found where its IoU reaches this. */
const FOUND_IOU = 0.5;

function judgeLabels(head, frame) {
  const items = head.classes.map((_, label) => {
    const [truths, right] = [frame.truths[label], frame.right[label]];
    const whole = truths + frame.found[label] - right, score = right / whole;
    const differs = frame.differs[label] ? `${frame.differs[label]} ${head.unit} differ` : "";
    return { table: "shown", index: label, label, score, state: score >= FOUND_IOU ? "found" : "wrong", distance: 0, differs, truths, right, whole };
  });
  return items.filter((one) => one.whole);
}

function judgeBoxes(head, frame, settings) {
  const [shown, other] = frame.runs;
  const keptOf = (run, table) =>
    new Set(table.scores.keys().filter((i) => table.scores[i] >= leastScore(head, run, table.labels[i], settings)));
  const kept = keptOf(0, shown);
  const keptOther = other ? keptOf(1, other) : new Set();
  const taken = new Set([...kept].map((i) => shown.match[i]).filter((j) => j >= 0));
  const items = [];
  for (const i of kept) {
    const near = shown.near[i];
    const state = shown.match[i] >= 0 ? "found" : near >= 0 && !taken.has(near) ? "confused" : "wrong";
    const differs = other ? difference(head, shown, i, other, shown.partner[i], keptOther) : "";
    items.push(item(head, "shown", shown, i, state, differs));
  }
  for (let j = 0; j < frame.truth.labels.length; j++)
    items.push(item(head, "truth", frame.truth, j, taken.has(j) ? "found" : "missed", ""));
  for (const k of keptOther) {
    const alone = !kept.has(other.partner[k]);
    const partner = alone ? null : items.find((one) => one.table === "shown" && one.index === other.partner[k]);
    const differs = alone ? `only in ${head.runs[1]}` : partner.differs;
    items.push(item(head, "other", other, k, "other", differs));
  }
  return items;
}

function item(head, table, boxes, index, state, differs) {
  const place = placeOf(head, boxes, index);
  const score = boxes.scores ? boxes.scores[index] : null;
  const distance = head.kind === "boxes3d" ? Math.hypot(place[0], place[1]) : 0;
  return { table, index, label: boxes.labels[index], score, state, distance, differs, place };
}

/** The numbers of one box: seven in 3D (center, size, yaw), four in 2D (left, top, right, bottom). */
function placeOf(head, boxes, index) {
  const width = head.kind === "boxes3d" ? 7 : 4;
  return boxes.boxes.slice(index * width, (index + 1) * width);
}

function difference(head, shown, index, other, partner, keptOther) {
  if (partner < 0 || !keptOther.has(partner)) return `only in ${head.runs[0]}`;
  const before = placeOf(head, other, partner), now = placeOf(head, shown, index);
  const moved = Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (moved > MOVED[head.kind]) return `moved ${moved.toFixed(2)} ${head.kind === "boxes3d" ? "m" : "pixels"}`;
  const change = shown.scores[index] - other.scores[partner];
  return Math.abs(change) > RESCORED ? `score ${change > 0 ? "+" : ""}${change.toFixed(2)}` : "";
}

/** Counts of a frame in words. */
function countsOf(head, items) {
  if (head.kind === "classes") return `${head.classes[items[0].label]}, ${items[0].state === "found" ? "recognized" : "not recognized"}`;
  if (head.kind === "labels") {
    const sum = (name) => items.reduce((total, one) => total + one[name], 0);
    return items.length ? `${((100 * sum("right")) / Math.max(1, sum("truths"))).toFixed(1)} % of ${sum("truths")} ${head.unit} right` : "nothing is judged";
  }
  const count = (table, state) => items.filter((one) => one.table === table && one.state === state).length;
  const confused = count("shown", "confused");
  const parts = [`${count("shown", "found")} found`, `${count("truth", "missed")} missed`, `${count("shown", "wrong")} wrong`];
  if (confused) parts.push(`${confused} of another class`);
  return parts.join(", ");
}

/** Whether an item is an error: something missed, wrong, or of another class. */
function isError(one) {
  return one.table === "truth" ? one.state === "missed" : one.table === "shown" && one.state !== "found";
}
