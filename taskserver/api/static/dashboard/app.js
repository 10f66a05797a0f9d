// The page: finds the view for the address, keeps the session, and moves between views without reloading.

import { base, events } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { obeyKeys } from "./keys.js";
import { notice } from "./parts.js";
import { showRun } from "./run.js";
import { currentSession, showSignIn, signOut } from "./session.js";
import { setTab } from "./tab.js";
import { showTask } from "./task.js";
import { showTasks } from "./tasks.js";
import { pause } from "./wait.js";

const VIEWS = [
  [/^$/, showTasks, null],
  [/^tasks\/([^/]+)$/, showTask, "id"],
  [/^runs\/([^/]+)$/, showRun, "id"],
];
const FIRST_PAUSE = 1000; // milliseconds between two tries to reach the server; doubled up to the last
const LAST_PAUSE = 15000;

const container = document.getElementById("view");
const banner = document.getElementById("banner");
let session = null;
let view = { close() {} };
let shownPlace = "";

/** The address within the server, such as "tasks/abc". */
const place = () => location.pathname.slice(new URL(base).pathname.length);
const placeAndQuery = () => place() + location.search;

/** A part of the address as it was before it was encoded; what is not encoded rightly stands for itself. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function setBanner(text, kind = "warning") {
  if (banner.textContent === text) return;
  banner.className = `banner ${kind}`;
  banner.textContent = text;
}

function show() {
  view.close();
  for (const [pattern, open, name] of VIEWS) {
    const match = pattern.exec(place());
    if (match) {
      const variables = name ? { [name]: decoded(match[1]) } : {};
      shownPlace = placeAndQuery();
      view = open(container, { ...variables, session, navigate, setBanner });
      return;
    }
  }
  setTab("Not found");
  view = { close() {} };
  fill(container, notice("There is nothing here", h("p", {}, h("a", { href: base }, "All tasks"))));
}

/** Go to an address of this page's. */
function navigate(href) {
  history.pushState(null, "", href);
  shownPlace = placeAndQuery();
  show();
  container.focus();
  scrollTo(0, 0);
}

function begin(found) {
  session = found;
  document.getElementById("who").textContent = session ? session.name : "";
  document.getElementById("sign-out").hidden = !session;
}

function askForKey(reason) {
  if (view.signIn) return;
  view.close();
  begin(null);
  const form = showSignIn(container, {
    reason,
    onSession(found) {
      begin(found);
      announce("Signed in");
      show();
      container.focus();
    },
  });
  view = { ...form, signIn: true };
}

/** Links to this page's own addresses, without reloading it. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
  const path = link.href.startsWith(base) ? link.href.slice(base.length) : null;
  const ours = path !== null && VIEWS.some(([pattern]) => pattern.test(path.replace(/[?#].*/, "")));
  const samePage = link.pathname === location.pathname && link.search === location.search && link.hash;
  if (!ours || samePage || !session) return;
  event.preventDefault();
  navigate(link.href);
});

addEventListener("popstate", () => {
  const before = shownPlace;
  shownPlace = placeAndQuery();
  if (session && shownPlace !== before) show(); // else only the hash has changed, which is the view's business
});

events.addEventListener("signed-out", () => askForKey("Your session is over, or its key was revoked. Sign in again."));

document.getElementById("home").href = base; // the page's own is relative to where it was loaded
document.getElementById("skip").addEventListener("click", () => container.focus());
document.getElementById("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
    askForKey("You are signed out.");
  } catch (error) {
    setBanner(`You are still signed in: ${error.message}.`);
  }
});

async function start() {
  for (let wait = FIRST_PAUSE; ; wait = Math.min(2 * wait, LAST_PAUSE)) {
    try {
      begin(await currentSession());
      break;
    } catch (error) {
      setBanner(`${error.message}; trying again…`);
      await pause(wait);
    }
  }
  setBanner("");
  if (session) show();
  else askForKey("");
}

obeyKeys(() => [
  ["t", "theme: the system's, light, dark", () => document.getElementById("theme").click()],
  ...(view.keys ?? []),
]);
start();
