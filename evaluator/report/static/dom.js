"use strict";
/* Elements from data. Text is set as text: nothing in a name becomes markup. */

/** An element: `make("button", {class: "x", onclick: f}, "text", child)`. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Value of a color of the style sheet, as the page's scheme has it now. */
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

/** Red, green, blue (0 to 255) of a color that is written as #rrggbb. */
function channels(shade) {
  const value = parseInt(shade.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
