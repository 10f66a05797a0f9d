// Elements made by calls. Text becomes text nodes and nothing else: what comes from a task is never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("a", {href: "…", class: "…", onclick: f}, "text", other)`. Null and false children are left out. */
export function h(name, properties = {}, ...children) {
  return build(document.createElement(name), properties, children);
}

/** The same for SVG. */
export function svg(name, properties = {}, ...children) {
  return build(document.createElementNS(SVG, name), properties, children);
}

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put `children` in the place of what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * The same where somebody may be at work while it is made anew: details that were open are open again, and what had the
 * focus has it again, or else the first link.
 */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? identity(document.activeElement) : null;
  const opened = [...element.querySelectorAll("details[open]")].map(nameOf);
  fill(element, ...children);
  for (const details of element.querySelectorAll("details")) details.open ||= opened.includes(nameOf(details));
  if (focused === null) return;
  const all = [...element.querySelectorAll("a[href], button:not(:disabled), summary, [tabindex]")];
  const found = all.find((one) => identity(one) === focused) ?? element.querySelector("a[href]");
  found?.focus({ preventScroll: true });
}

const nameOf = (details) => details.querySelector("summary").textContent;

/** What is the same of an element that was made once more. */
const identity = (element) => `${element.tagName} ${element.getAttribute("href")} ${element.textContent}`;

/** Have `parent` hold exactly `children`, in this order. What is in its place is not touched, and keeps the focus. */
export function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let place = parent.firstElementChild;
  for (const child of children) {
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

/** Set an element's text if it is another one: screen readers and selections notice every change. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Have a screen reader say something, without moving the focus. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
