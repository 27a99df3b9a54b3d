// A request as something to run: curl, Python and JavaScript, with the key from $TIGER_API_KEY. Pure; a test runs every one of them.

export const LANGUAGES = ['curl', 'python', 'javascript'] as const;
export type Language = (typeof LANGUAGES)[number];
export const LANGUAGE_NAMES: Record<Language, string> = { curl: 'curl', python: 'Python', javascript: 'JavaScript' };

export interface Call {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** With its leading `/v1`. */
  path: string;
  body?: Record<string, unknown>;
}

/** The call in a language; `origin` is the server's address, such as `http://localhost:45678`. */
export function snippet(call: Call, language: Language, origin: string): string {
  return { curl, python, javascript }[language](call, origin);
}

const streamed = (call: Call) => call.body?.stream === true;

/** JSON that is short enough stays on one line. */
function json(value: unknown, indent = 0): string {
  const line = JSON.stringify(value);
  if (line.length + indent < 80 || typeof value !== 'object' || value === null) return spaced(value);
  const pad = ' '.repeat(indent + 2);
  if (Array.isArray(value)) return `[\n${value.map((item) => pad + json(item, indent + 2)).join(',\n')}\n${' '.repeat(indent)}]`;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return `{\n${fields.map(([name, field]) => `${pad}${JSON.stringify(name)}: ${json(field, indent + 2)}`).join(',\n')}\n${' '.repeat(indent)}}`;
}

function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    return `{${fields.map(([name, field]) => `${JSON.stringify(name)}: ${spaced(field)}`).join(', ')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}

/** Single-quoted for a POSIX shell. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl(call: Call, origin: string): string {
  const lines = [`curl ${streamed(call) ? '-N ' : ''}${call.method === 'GET' || call.body ? '' : `-X ${call.method} `}${origin}${call.path}`];
  if (call.method === 'PATCH') lines[0] = `curl -X PATCH ${origin}${call.path}`;
  lines.push('-H "Authorization: Bearer $TIGER_API_KEY"');
  if (call.body) lines.push('-H "Content-Type: application/json"', `-d ${quoted(json(call.body, 2))}`);
  return lines.join(' \\\n  ');
}

/** JSON as a Python literal. */
function pythonLiteral(value: unknown, indent = 0): string {
  // Words outside strings only: strings are matched first and kept.
  return json(value, indent).replace(/"(?:[^"\\]|\\.)*"|\btrue\b|\bfalse\b|\bnull\b/g, (part) => {
    return { true: 'True', false: 'False', null: 'None' }[part] ?? part;
  });
}

function python(call: Call, origin: string): string {
  const data = call.body ? `,\n    data=json.dumps(${pythonLiteral(call.body, 4)}).encode()` : '';
  const head = `import json, os, urllib.request

request = urllib.request.Request(
    "${origin}${call.path}",
    method="${call.method}",
    headers={"Authorization": f"Bearer {os.environ['TIGER_API_KEY']}", "Content-Type": "application/json"}${data})
`;
  if (!streamed(call)) return `${head}print(json.load(urllib.request.urlopen(request)))\n`;
  return `${head}for line in urllib.request.urlopen(request):
    chunk = json.loads(line)
    if chunk["type"] == "error":
        raise RuntimeError(chunk["error"]["message"])
    print(chunk.get("delta", ""), end="", flush=True) if chunk["type"] == "delta" else print(chunk)
`;
}

function javascript(call: Call, origin: string): string {
  const body = call.body ? `,\n  body: JSON.stringify(${json(call.body, 2)})` : '';
  const head = `const response = await fetch("${origin}${call.path}", {
  method: "${call.method}",
  headers: { Authorization: \`Bearer \${process.env.TIGER_API_KEY}\`, "Content-Type": "application/json" }${body}
});
if (!response.ok) throw new Error((await response.json()).error.message);
`;
  if (!streamed(call)) return `${head}console.log(await response.json());\n`;
  return `${head}let rest = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\\n");
  rest = lines.pop();
  for (const chunk of lines.filter(Boolean).map((line) => JSON.parse(line))) {
    if (chunk.type === "error") throw new Error(chunk.error.message);
    if (chunk.type === "delta") process.stdout.write(chunk.delta ?? "");
    else console.log(chunk);
  }
}
`;
}
