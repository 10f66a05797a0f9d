// Signing in and out. The key is posted once and kept nowhere: the session's cookie cannot be read by any script.

import { Refusal, ask } from "./api.js";
import { h, fill, setText } from "./dom.js";
import { setTab } from "./tab.js";

/** Who is signed in, or null. Rejects if that cannot be known now. */
export async function currentSession() {
  try {
    return await ask("GET", "session", { expected: true });
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return null;
    throw error;
  }
}

export const signOut = () => ask("DELETE", "session");

/** Ask for a key in `container`; `reason` says why, if the reader was signed in before. */
export function showSignIn(container, { reason, onSession }) {
  setTab("Sign in");
  const problem = h("p", { id: "problem", class: "problem", role: "alert" });
  const input = h("input", {
    id: "key",
    name: "key",
    type: "password",
    autocomplete: "current-password",
    autocapitalize: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "problem key-help",
  });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    setText(problem, "");
    try {
      onSession(await ask("POST", "session", { body: { key: input.value.trim() }, expected: true }));
    } catch (error) {
      setText(problem, explain(error));
      input.focus();
      input.select();
    } finally {
      button.disabled = false;
    }
  }

  // If the script were gone, the form would post all the same: a key must never stand in a URL.
  const form = h(
    "form",
    { class: "card sign-in", method: "post", action: "", onsubmit: submit },
    h("h1", {}, "Sign in"),
    reason && h("p", { class: "reason" }, reason),
    // For password managers, which keep a name with each password.
    h("input", { type: "text", name: "username", autocomplete: "username", value: "taskserver", hidden: true }),
    h("label", { for: "key" }, "API key"),
    input,
    problem,
    button,
    h(
      "p",
      { id: "key-help", class: "help" },
      "The first start of a server leaves a key beside its database (",
      h("code", {}, "tasks.db.key"),
      "); ",
      h("code", {}, "taskserver keys create NAME"),
      " makes others. A key that may only read is enough to watch.",
    ),
  );
  fill(container, form);
  input.focus();
  return { close() {} };
}

function explain(error) {
  if (!(error instanceof Refusal)) return `${sentence(error.message)} Try again.`;
  if (error.status === 401) return "This key is unknown, revoked or expired.";
  if (error.status === 403) return sentence(error.message);
  return sentence(`the server refused: ${error.message}`);
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
