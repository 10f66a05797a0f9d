// The browser tab: its title and icon tell the state of what is shown.

import { base } from "./api.js";

/** Show `title`, with a state's icon, or the neutral one without a state. */
export function setTab(title, state = "idle") {
  document.title = title ? `${title} · taskserver` : "taskserver";
  document.getElementById("icon").href = `${base}dashboard/icons/${state}.svg`;
}
