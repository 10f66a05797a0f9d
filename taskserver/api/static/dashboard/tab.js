// The browser tab: its title and icon tell the state of what is shown.

import { base } from "./api.js";

/** Show `title`, with a state's icon, or the neutral one without a state. */
export function setTab(title, state = "idle") {
  const text = `${title} · taskserver`;
  if (document.title !== text) document.title = text;
  const icon = document.getElementById("icon");
  const href = `${base}dashboard/icons/${state}.svg`;
  if (icon.href !== href) icon.href = href;
}
