// The service: requests with its token, and whatever goes wrong as one sentence.

const TOKEN = "vitlens-token";
let asksForToken = () => {};

export class Problem extends Error {
  constructor(sentence, { again = false, code = "" } = {}) {
    super(sentence);
    this.again = again;
    this.code = code;
  }
}

export function onTokenWanted(handler) {
  asksForToken = handler;
}

export function useToken(text) {
  sessionStorage.setItem(TOKEN, text);
}

// The answer to a request: `body` is an object (sent as JSON) or a form; without one it is a GET.
export async function ask(path, body) {
  return (await request(path, body)).json();
}

export async function blobOf(path) {
  return (await request(path)).blob();
}

async function request(path, body, tries = 3) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers };
  if (body instanceof FormData) Object.assign(options, { method: "POST", body });
  else if (body) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem("The service does not answer: it may have ended, or the network is gone. Try again when it is there.", {
      again: true,
    });
  }
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))).error ?? {};
  const wait = Number(answer.headers.get("Retry-After"));
  if (answer.status === 429 && tries > 1) {
    await new Promise((done) => setTimeout(done, 1000 * Math.min(wait || 1, 10)));
    return request(path, body, tries - 1);
  }
  if (answer.status === 401) asksForToken(token ? told.message : "");
  throw new Problem(told.message ?? `The service answered with status ${answer.status} and without a reason.`, {
    again: answer.status >= 429 || answer.status === 401,
    code: told.code,
  });
}
