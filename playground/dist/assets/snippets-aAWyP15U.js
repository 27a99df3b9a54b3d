var e=[`curl`,`python`,`javascript`],t={curl:`curl`,python:`Python`,javascript:`JavaScript`};function n(e,t,n){return{curl:s,python:l,javascript:u}[t](e,n)}var r=e=>e.body?.stream===!0;function i(e,t=0){if(JSON.stringify(e).length+t<80||typeof e!=`object`||!e)return a(e);let n=` `.repeat(t+2);return Array.isArray(e)?`[\n${e.map(e=>n+i(e,t+2)).join(`,
`)}\n${` `.repeat(t)}]`:`{\n${Object.entries(e).filter(([,e])=>e!==void 0).map(([e,r])=>`${n}${JSON.stringify(e)}: ${i(r,t+2)}`).join(`,
`)}\n${` `.repeat(t)}}`}function a(e){return Array.isArray(e)?`[${e.map(a).join(`, `)}]`:typeof e==`object`&&e?`{${Object.entries(e).filter(([,e])=>e!==void 0).map(([e,t])=>`${JSON.stringify(e)}: ${a(t)}`).join(`, `)}}`:JSON.stringify(e)??`null`}var o=e=>`'${e.replaceAll(`'`,`'\\''`)}'`;function s(e,t){let n=[`curl ${r(e)?`-N `:``}${e.method===`GET`||e.body?``:`-X ${e.method} `}${t}${e.path}`];return e.method===`PATCH`&&(n[0]=`curl -X PATCH ${t}${e.path}`),n.push(`-H "Authorization: Bearer $TIGER_API_KEY"`),e.body&&n.push(`-H "Content-Type: application/json"`,`-d ${o(i(e.body,2))}`),n.join(` \\
  `)}function c(e,t=0){return i(e,t).replace(/"(?:[^"\\]|\\.)*"|\btrue\b|\bfalse\b|\bnull\b/g,e=>({true:`True`,false:`False`,null:`None`})[e]??e)}function l(e,t){let n=e.body?`,\n    data=json.dumps(${c(e.body,4)}).encode()`:``,i=`import json, os, urllib.request

request = urllib.request.Request(
    "${t}${e.path}",
    method="${e.method}",
    headers={"Authorization": f"Bearer {os.environ['TIGER_API_KEY']}", "Content-Type": "application/json"}${n})
`;return r(e)?`${i}for line in urllib.request.urlopen(request):
    chunk = json.loads(line)
    if chunk["type"] == "error":
        raise RuntimeError(chunk["error"]["message"])
    print(chunk.get("delta", ""), end="", flush=True) if chunk["type"] == "delta" else print(chunk)
`:`${i}print(json.load(urllib.request.urlopen(request)))\n`}function u(e,t){let n=e.body?`,\n  body: JSON.stringify(${i(e.body,2)})`:``,a=`const response = await fetch("${t}${e.path}", {
  method: "${e.method}",
  headers: { Authorization: \`Bearer \${process.env.TIGER_API_KEY}\`, "Content-Type": "application/json" }${n}
});
if (!response.ok) throw new Error((await response.json()).error.message);
`;return r(e)?`${a}let rest = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\\n");
  rest = lines.pop();
  for (const chunk of lines.filter(Boolean).map((line) => JSON.parse(line))) {
    if (chunk.type === "error") throw new Error(chunk.error.message);
    if (chunk.type === "delta") process.stdout.write(chunk.delta ?? "");
    else console.log(chunk);
  }
}
`:`${a}console.log(await response.json());\n`}export{t as n,n as r,e as t};