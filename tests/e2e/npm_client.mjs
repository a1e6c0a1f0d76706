// A scriptable MCP client on the npm SDK, for end-to-end tests.
//
//     node npm_client.mjs http|sse URL [STEPS]
//
// The bearer token is in MCP_TOKEN. STEPS is a JSON list; without it, stdin has one step, or one list of steps, a line,
// so that a test can do something between two steps of one session. One JSON line is printed for the connection and one
// for each step: {"do", "result" | "error": {"code", "message", "data"}} and, of what came meanwhile, "progress",
// "asked" (requests of the server) and "notifications". Exit code: 0 when all steps were taken, whatever they gave;
// 1 when there is no connection; 2 for wrong usage.
//
//     {"do": "list", "what": "tools" | "resources" | "templates" | "prompts"}     all pages
//     {"do": "call", "name": …, "arguments": {…}, "abort_ms": …}                  abort_ms: cancel after so long
//     {"do": "read" | "subscribe" | "unsubscribe", "uri": …}
//     {"do": "prompt", "name": …, "arguments": {…}}
//     {"do": "complete", "ref": {…}, "argument": {…}}
//     {"do": "ping"}   {"do": "setLevel", "level": …}   {"do": "request", "method": …, "params": {…}}
//     {"do": "answer", "sampling": {…}, "elicitation": {…}, "roots": […]}         replies from now on
//     {"do": "wait", "method": "notifications/…", "count": 1, "timeout_ms": 10000} since the connection was made

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../.venv/peers/node/package.json", import.meta.url));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { SSEClientTransport } = require("@modelcontextprotocol/sdk/client/sse.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  ResultSchema,
} = require("@modelcontextprotocol/sdk/types.js");

const STEP_LIMIT = 60_000; // milliseconds
const LISTS = {
  tools: ["tools/list", "tools"],
  resources: ["resources/list", "resources"],
  templates: ["resources/templates/list", "resourceTemplates"],
  prompts: ["prompts/list", "prompts"],
};

const replies = {
  sampling: { role: "assistant", content: { type: "text", text: "canned" }, model: "canned", stopReason: "endTurn" },
  elicitation: { action: "decline" },
  roots: [],
};
const seen = []; // every notification since the connection was made
const watchers = new Set();
let meanwhile = fresh();

function fresh() {
  return { progress: [], asked: [], notifications: [] };
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function noted(request) {
  meanwhile.asked.push({ method: request.method, params: request.params });
}

function makeClient() {
  const client = new Client(
    { name: "npm-client", version: "1.0.0" },
    { capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } } },
  );
  client.setRequestHandler(CreateMessageRequestSchema, (request) => (noted(request), replies.sampling));
  client.setRequestHandler(ElicitRequestSchema, (request) => (noted(request), replies.elicitation));
  client.setRequestHandler(ListRootsRequestSchema, (request) => (noted(request), { roots: replies.roots }));
  client.fallbackNotificationHandler = async (notification) => {
    const plain = { method: notification.method, params: notification.params };
    meanwhile.notifications.push(plain);
    seen.push(plain);
    for (const look of watchers) look();
  };
  return client;
}

function makeTransport(kind, url) {
  const headers = process.env.MCP_TOKEN ? { Authorization: `Bearer ${process.env.MCP_TOKEN}` } : {};
  const options = { requestInit: { headers } };
  return kind === "sse"
    ? new SSEClientTransport(new URL(url), options)
    : new StreamableHTTPClientTransport(new URL(url), options);
}

async function take(client, step) {
  const request = (method, params, options = {}) =>
    client.request({ method, params }, ResultSchema, {
      timeout: STEP_LIMIT,
      onprogress: (progress) => meanwhile.progress.push(progress),
      ...options,
    });
  switch (step.do) {
    case "list":
      return list(request, ...LISTS[step.what]);
    case "call":
      return call(request, step);
    case "read":
      return request("resources/read", { uri: step.uri });
    case "subscribe":
    case "unsubscribe":
      return request(`resources/${step.do}`, { uri: step.uri });
    case "prompt":
      return request("prompts/get", { name: step.name, arguments: step.arguments });
    case "complete":
      return request("completion/complete", { ref: step.ref, argument: step.argument });
    case "ping":
      return request("ping", {});
    case "setLevel":
      return request("logging/setLevel", { level: step.level });
    case "request":
      return request(step.method, step.params);
    case "answer":
      for (const key of Object.keys(replies)) if (key in step) replies[key] = step[key];
      return {};
    case "wait":
      return waitFor(step.method, step.count ?? 1, step.timeout_ms ?? 10_000);
    default:
      throw new Error(`no such step: ${JSON.stringify(step)}`);
  }
}

async function list(request, method, member) {
  const all = [];
  let cursor;
  do {
    const page = await request(method, cursor === undefined ? {} : { cursor });
    all.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return all;
}

async function call(request, step) {
  const params = { name: step.name, arguments: step.arguments ?? {} };
  if (step.abort_ms === undefined) return request("tools/call", params);
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort("given up"), step.abort_ms);
  try {
    return await request("tools/call", params, { signal: controller.signal });
  } finally {
    clearTimeout(timer);
  }
}

function waitFor(method, count, limit) {
  return new Promise((resolve, reject) => {
    const look = () => {
      const found = seen.filter((one) => one.method === method);
      if (found.length < count) return;
      clearTimeout(timer);
      watchers.delete(look);
      resolve(found);
    };
    const timer = setTimeout(() => {
      watchers.delete(look);
      reject(new Error(`${seen.filter((one) => one.method === method).length} of ${count} ${method} in ${limit} ms`));
    }, limit);
    watchers.add(look);
    look();
  });
}

function told(error) {
  return { code: error?.code ?? null, message: String(error?.message ?? error), data: error?.data ?? null };
}

async function report(client, step) {
  meanwhile = fresh();
  let outcome;
  try {
    outcome = { result: await take(client, step) };
  } catch (error) {
    outcome = { error: told(error) };
  }
  print({ do: step.do, ...outcome, ...meanwhile });
}

async function* steps(given) {
  const lines = given === undefined ? createInterface({ input: process.stdin }) : [given];
  for await (const line of lines) {
    if (!line.trim()) continue;
    const parsed = JSON.parse(line);
    yield* Array.isArray(parsed) ? parsed : [parsed];
  }
}

async function main([kind, url, given]) {
  if (!["http", "sse"].includes(kind) || url === undefined) {
    process.stderr.write("usage: npm_client.mjs http|sse URL [STEPS]\n");
    return 2;
  }
  const client = makeClient();
  const transport = makeTransport(kind, url);
  try {
    await client.connect(transport);
  } catch (error) {
    print({ do: "connect", error: told(error) });
    return 1;
  }
  print({
    do: "connect",
    result: {
      protocolVersion: transport.protocolVersion ?? null,
      serverInfo: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
      instructions: client.getInstructions() ?? null,
      sessionId: transport.sessionId ?? null,
    },
  });
  for await (const step of steps(given)) await report(client, step);
  await transport.terminateSession?.();
  await client.close();
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
