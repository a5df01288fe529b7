"use strict";
// Everything that is shown is set as text: titles and ids are untrusted.

const $ = (id) => document.getElementById(id);
const state = { user: null, history: [], about: null, asked: 0 };

function make(tag, properties = {}, ...children) {
  const { data, ...plain } = properties;
  const element = Object.assign(document.createElement(tag), plain);
  for (const [name, value] of Object.entries(data ?? {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) $("token-form").hidden = false;
  if (!response.ok) throw new Error(answer.detail ?? `The service answered ${response.status}`);
  return answer;
}

/** Runs `work`; what goes wrong is told to the reader. */
async function tell(work) {
  try {
    $("status").textContent = "";
    return await work();
  } catch (error) {
    $("status").textContent = error.message;
  }
}

function later(work, milliseconds = 150) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(() => tell(work), milliseconds); };
}

// The model

async function loadModel() {
  const about = state.about = await ask("/v1/model");
  $("token-form").hidden = true;
  const fresh = about.new_items ? `, ${about.new_items} of them new` : "";
  $("model").textContent = `${about.model.name}, version ${about.model.version}: ${about.items.toLocaleString()} items${fresh}, ${about.users.toLocaleString()} users`;
  for (const [id, first] of [["allow", "any"], ["deny", "none"]]) {
    const chosen = $(id).value;
    $(id).replaceChildren(make("option", { value: "" }, first), ...about.categories.map((name) => make("option", { value: name }, name)));
    $(id).value = chosen;
  }
  $("legend").replaceChildren("Share of the score:", ...about.signals.flatMap((name, place) => [make("span", { className: `s${place % 6}` }), name]));
  if (!$("fields").childElementCount) showFields(about);
}

function showFields(about) {
  const columns = about.columns.filter((name) => !name.startsWith("image"));
  $("fields").replaceChildren(...columns.flatMap((name) => {
    const id = `field-${name}`;
    const label = name === "categories" ? "categories, separated by commas" : name.replaceAll("_", " ");
    const input = name === "description" ? make("textarea", { id, rows: 3 }) : make("input", { id, autocomplete: "off" });
    if (name === "item_id") input.value = `new-${Date.now().toString(36)}`;
    input.required = name === "item_id";
    return [make("label", { htmlFor: id }, label), input];
  }));
  $("add").disabled = !about.takes_items;
  if (!about.takes_items) $("landed").textContent = "This model takes no new items: it has a signal without an encoder for texts.";
}

// For whom

function itemButton(item, label, onclick) {
  const tags = item.categories?.length ? make("span", { className: "tags" }, ` ${item.categories.join(", ")}`) : null;
  const fresh = item.new ? make("span", { className: "new" }, "new") : null;
  return make("button", { type: "button", className: "plain", onclick, data: { "aria-label": `${label}: ${item.title}` } }, item.title, fresh, tags);
}

async function search() {
  const answer = await ask(`/v1/items?limit=12&query=${encodeURIComponent($("search").value.trim())}`);
  $("found").replaceChildren(...answer.items.map((item) => make("li", {}, itemButton(item, "Add to the history", () => addToHistory(item)))));
}

function addToHistory(item) {
  state.user = null;
  state.history.push(item);
  tell(refresh);
}

async function showUser() {
  const user = $("user").value.trim();
  if (!user) return;
  const answer = await ask(`/v1/users/${encodeURIComponent(user)}/history`);
  [state.user, state.history] = [user, answer.items];
  await refresh();
}

async function suggestUsers() {
  const answer = await ask(`/v1/users?limit=20&prefix=${encodeURIComponent($("user").value.trim())}`);
  $("users").replaceChildren(...answer.user_ids.map((id) => make("option", { value: id })));
}

function showHistory() {
  $("history-title").textContent = state.user === null ? "History" : `History of ${state.user}`;
  $("history-hint").hidden = state.history.length > 0;
  $("clear").hidden = state.history.length === 0;
  $("history").replaceChildren(...state.history.map((item, place) =>
    make("li", {}, itemButton(item, "Take out of the history", () => {
      state.user = null;
      state.history.splice(place, 1);
      tell(refresh);
    }))));
  $("history").scrollTop = $("history").scrollHeight;
}

// Recommended

function person() {
  return state.user !== null ? { user_id: state.user } : { history: state.history.map((item) => item.item_id) };
}

async function refresh() {
  showHistory();
  const [asked, allow, deny] = [++state.asked, $("allow").value, $("deny").value];
  const body = { ...person(), k: Math.min(100, Math.max(1, Number($("k").value) || 10)), exclude_seen: !$("seen").checked, explain: true };
  if (allow || deny) body.categories = { ...(allow && { allow: [allow] }), ...(deny && { deny: [deny] }) };
  const answer = await ask("/v1/recommend", body);
  // An answer that comes late must not stand over a newer one.
  if (asked !== state.asked) return;
  if (answer.model.version !== state.about.model.version) await loadModel();
  const steps = { cached_vector: "from the user's last known vector", popularity: "by popularity" };
  $("step").hidden = answer.step === "fused";
  $("step").textContent = answer.step === "fused" ? "" : `Made ${steps[answer.step]}: the ${answer.degraded} does not let the model answer.`;
  $("items").replaceChildren(...answer.items.map(recommended));
  if (!answer.items.length) $("items").append(make("p", { className: "quiet" }, "Nothing is left to recommend."));
}

function recommended(item) {
  const add = make("button", { type: "button", onclick: () => addToHistory(item), data: { "aria-label": `Add to the history: ${item.title}` } }, "+");
  const because = item.because?.length ? make("p", { className: "why" }, `Near ${item.because.map((near) => near.title).join(" · ")}`) : null;
  const reason = item.reason ? make("p", { className: "why" }, item.reason) : null;
  return make("li", {}, make("span", { className: "title", title: `score ${item.score.toFixed(3)}` }, item.title), add, bar(item.shares), because, reason);
}

/** Widths are the sizes of the shares; what lowers the score is pale. */
function bar(shares) {
  const parts = Object.entries(shares);
  const total = parts.reduce((sum, [, value]) => sum + Math.abs(value), 0) || 1;
  const told = parts.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
  return make("div", { className: "bar", title: told, data: { role: "img", "aria-label": `Shares of the score: ${told || "none"}` } },
    ...parts.map(([, value], place) => {
      const part = make("span", { className: `s${place % 6}${value < 0 ? " less" : ""}` });
      part.style.width = `${(100 * Math.abs(value)) / total}%`;
      return part;
    }));
}

// A new item

async function addItem() {
  const item = {};
  for (const input of $("fields").querySelectorAll("input, textarea")) {
    const [name, value] = [input.id.slice("field-".length), input.value.trim()];
    if (value) item[name] = name === "categories" ? value.split(",").map((part) => part.trim()).filter(Boolean) : value;
  }
  $("add").disabled = true;
  $("landed").textContent = "Reading its text …";
  try {
    await ask("/v1/items", { items: [item] });
    await loadModel();
    await Promise.all([showLanded(item), refresh(), search()]);
    $("field-item_id").value = `new-${Date.now().toString(36)}`;
  } catch (error) {
    $("landed").textContent = "";
    throw error;
  } finally {
    $("add").disabled = false;
  }
}

async function showLanded(item) {
  const [near, all] = await Promise.all([
    ask(`/v1/similar/${encodeURIComponent(item.item_id)}?k=5`),
    ask("/v1/recommend", { ...person(), k: 1000, exclude_seen: true }),
  ]);
  const place = all.items.findIndex((other) => other.item_id === item.item_id);
  const whom = state.user !== null ? `user ${state.user}` : state.history.length ? "this history" : "somebody without a history";
  const rank = place < 0 ? `beyond place ${all.items.length}` : `at place ${place + 1}`;
  $("landed").replaceChildren(
    make("p", {}, make("strong", {}, item.title ?? item.item_id), ` can be recommended now. For ${whom} it stands ${rank}.`),
    make("h3", {}, "Nearest items"),
    make("ol", { className: "items" }, ...near.items.map((other) => make("li", {}, `${other.title} `, make("span", { className: "tags" }, other.score.toFixed(2))))));
}

// Wiring

function on(id, event, work) {
  $(id).addEventListener(event, (happened) => {
    if (event === "submit") happened.preventDefault();
    tell(work);
  });
}

on("user-form", "submit", showUser);
on("search-form", "submit", async () => { await search(); $("found").querySelector("button")?.focus(); });
on("new-form", "submit", addItem);
on("token-form", "submit", async () => { sessionStorage.setItem("token", $("token").value); await start(); });
on("clear", "click", async () => { [state.user, state.history] = [null, []]; $("user").value = ""; await refresh(); });
on("options", "submit", refresh);
for (const id of ["k", "allow", "deny", "seen"]) on(id, "change", refresh);
$("search").addEventListener("input", later(search));
$("user").addEventListener("input", later(suggestUsers));
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("search").focus();
  }
});

async function start() {
  await loadModel();
  await Promise.all([search(), suggestUsers(), refresh()]);
}

tell(start);
