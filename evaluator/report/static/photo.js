/* Photos of a frame, with its boxes on them. */

/** A photo, the boxes on it (`shapes`: per item, tag and attributes of its outline), and their names. */
function photoWith(photo, title, shapes, chosen, onSelect, names) {
  const svg = draw("svg", { viewBox: `0 0 ${photo.width} ${photo.height}`, role: "img", "aria-label": title });
  svg.append(draw("image", { href: photo.uri, width: photo.width, height: photo.height }));
  for (const [one, tag, attributes] of shapes)
    svg.append(draw(tag, { ...attributes, class: boxClass(one, chosen), onclick: () => onSelect(one) }, draw("title", {}, one.title)));
  svg.append(...names);
  const figure = make("figure", { class: "photo" }, svg);
  if (photo.name) {
    const enlarge = () => figure.classList.toggle("large");
    figure.append(make("figcaption", {}, make("button", { type: "button", title: "Larger or smaller", onclick: enlarge }, `${photo.name} ⤢`)));
  }
  return figure;
}

/** The boxes that a camera sees, as their edges. */
function outlinesOn(photo, items) {
  const shapes = [];
  for (const [place, table] of ["truth", "shown", "other"].entries())
    for (const [index, path] of photo.outlines[place] || []) {
      const one = items.find((candidate) => candidate.table === table && candidate.index === index);
      if (one) shapes.push([one, "path", { d: path }]);
    }
  return shapes;
}

/** Boxes of 2D detection. */
function rectangles(items) {
  return items.map((one) => {
    const [left, top, right, bottom] = one.place;
    return [one, "rect", { x: left, y: top, width: right - left, height: bottom - top }];
  });
}

/** Class and score beside the boxes of 2D detection, in letters that stay readable when the photo is scaled. */
function labelsOn(photo, items, chosen) {
  const unit = photo.width / 760;
  const anchor = (one) => [(one.place[0] + one.place[2]) / 2 / unit, Math.max(12, one.place[1] / unit - 4)];
  const labels = labelsOf(items, chosen, anchor, photo.width / unit, photo.height / unit, true);
  return [draw("g", { transform: `scale(${unit})` }, ...labels)];
}
