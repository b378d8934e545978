// Questions to the server.

/** What the server refused, with its status and what it said. */
export class Refused extends Error {
  constructor(status, kind, text) {
    super(text);
    this.status = status;
    this.kind = kind;
  }
}

const asciiOnly = (text) => encodeURIComponent(text);

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "Unreachable", "The server cannot be reached. Nothing is lost: try again once it runs.");
  }
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Refused(response.status, found.kind, found.error);
  return found;
}

/** Asks for something; `query` has lists as well. */
export function get(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) parameters.append(name, one);
  }
  const text = parameters.toString();
  return answer(text ? `${path}?${text}` : path, {});
}

/** Changes something, in the name that the person gave. */
export function post(path, body) {
  return answer(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-person": asciiOnly(person()) },
    body: JSON.stringify(body),
  });
}

export const person = () => localStorage.getItem("person") ?? "";

/** The address of a small picture of an item. */
export const thumbnail = (idx, key, version, side) =>
  `/thumbnail/${idx}/${encodeURIComponent(key)}?side=${side}&version=${encodeURIComponent(version)}`;
