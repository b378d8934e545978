// Questions to the server.

/** What the server refused, with its status and what it said. */
export class Refused extends Error {
  constructor(status, kind, text) {
    super(text);
    this.status = status;
    this.kind = kind;
  }
}

/** A number with the text that it was written with: 1.0 stays a float, an integer has all its digits. */
export class Exact {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }

  toJSON() {
    return JSON.rawJSON(this.text);
  }
}

/** Whether the browser can read and write numbers as they are written. */
export const canBeExact = "rawJSON" in JSON;

/** JSON with its numbers as they are written; where a browser cannot do that, as its own numbers. */
export function exactly(text) {
  return JSON.parse(text, (_, value, at) => (canBeExact && typeof value === "number" ? new Exact(at.source) : value));
}

async function answer(path, options, read = JSON.parse) {
  let response, text;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch {
    throw new Refused(0, "Unreachable", "The server cannot be reached. Nothing is lost: try again once it runs.");
  }
  if (response.ok) return read(text);
  const { kind, error } = refusal(text) ?? { error: response.statusText };
  throw new Refused(response.status, kind, error);
}

function refusal(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // it does not come of this application, but of what is between
  }
}

/** Asks for something; `query` has lists as well; `read` reads the answer. */
export function get(path, query = {}, read = JSON.parse) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) parameters.append(name, one);
  }
  const text = parameters.toString();
  return answer(text ? `${path}?${text}` : path, {}, read);
}

/** Changes something, in the name that the person gave; `read` reads the answer. */
export function post(path, body, read = JSON.parse) {
  return answer(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-person": encodeURIComponent(person()) },
    body: JSON.stringify(body),
  }, read);
}

export const person = () => localStorage.getItem("person") ?? "";
