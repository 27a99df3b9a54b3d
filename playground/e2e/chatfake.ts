// Answers that the built-in model does not give: long, slow, hostile, failing. `fakeAnswers` runs in the page, in place of its fetch.

export interface Fake {
  /** Pieces of the answer. */
  chunks?: string[];
  reasoning?: string[];
  /** Time between writes, ms. */
  every?: number;
  /** Pieces of one write. */
  chunk?: number;
  error?: { status: number; retry: number; message: string };
}

/** Must be complete in itself: only its text reaches the page. */
export function fakeAnswers({ chunks = [], reasoning = [], every = 1, chunk = 1, error }: Fake): void {
  const world = window as unknown as { realFetch?: typeof fetch; aborted?: number };
  world.realFetch ??= window.fetch;
  const real = world.realFetch;
  world.aborted = 0;
  window.fetch = async (input, init) => {
    if (!String(input).includes('/v1/generate_response')) return real(input, init);
    const signal = init?.signal;
    if (error) {
      const body = { error: { type: 'rate_limit', code: 'rate_limited', message: error.message, request_id: 'req_fake' } };
      return new Response(JSON.stringify(body), { status: error.status, headers: { 'retry-after': String(error.retry) } });
    }
    const lines = [
      ...reasoning.map((text) => ({ type: 'delta', reasoning: text })),
      ...chunks.map((delta) => ({ type: 'delta', delta })),
      {
        type: 'stop',
        stop_reason: 'end_turn',
        usage: { duration: 1, input_tokens: 1, cached_tokens: 0, output_tokens: chunks.length },
        id: 'fake',
        model: 'tiger-nano',
        revision: 0,
        response_id: 'resp_fake',
      },
    ].map((line) => `${JSON.stringify(line)}\n`);
    const encoder = new TextEncoder();
    let at = 0;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        signal?.addEventListener('abort', () => {
          world.aborted!++;
          at = Number.POSITIVE_INFINITY;
          controller.error(new DOMException('The user aborted a request.', 'AbortError'));
        });
      },
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, every));
        if (at >= lines.length) return;
        controller.enqueue(encoder.encode(lines.slice(at, at + chunk).join('')));
        at += chunk;
        if (at >= lines.length) controller.close();
      },
    });
    return new Response(body, { headers: { 'content-type': 'application/x-ndjson' } });
  };
}

/** About `tokens` pieces of Markdown that are one single block. */
export function longBlock(kind: 'list' | 'numbers' | 'table' | 'quote' | 'code', tokens: number): string[] {
  const parts = { list: [''], numbers: [''], table: ['| name | number | code | words |\n|---|--:|---|---|\n'], quote: [''], code: ['```python\n'] }[kind];
  for (let at = 1, size = 0; size < tokens * 4; at++) {
    const part = {
      list: `- the **tiger** of number ${at} walks along a \`quiet\` river\n  - and looks for something\n`,
      numbers: `${at}. the **tiger** walks along a [quiet](https://example.org/${at}) river\n`,
      table: `| tiger | ${at} | \`grass\` | **that moves** in it |\n`,
      quote: `> The tiger of *number* ${at} walks along a quiet river and looks for something.\n>\n`,
      code: `tiger_${at} = [${at % 9}, "grass"]  # that moves in the tall grass\n`,
    }[kind];
    parts.push(part);
    size += part.length;
  }
  parts.push(kind === 'code' ? '```\n\nThe very end.\n' : '\n\nThe very end.\n');
  return parts.join('').match(/[\s\S]{1,4}/g)!;
}

/** About `tokens` pieces of Markdown: headings, lists, code, a long table, paragraphs; always the same. */
export function longMarkdown(tokens: number): string[] {
  const words = 'the tiger walks along a quiet river and looks for something that moves in the tall grass'.split(' ');
  let seed = 7;
  const next = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const some = (n: number) => Array.from({ length: n }, () => words[next(words.length)]).join(' ');
  const row = () => `| ${some(1)} | ${next(1000)} | \`${some(1)}\` | **${some(2)}** |\n`;
  const parts: string[] = ['# A long answer\n\n', '| name | number | code | words |\n|---|--:|---|---|\n', ...Array.from({ length: 120 }, row), '\n'];
  const size = () => parts.join('').length / 4;
  for (let section = 1; size() < tokens; section++) {
    parts.push(`## Section ${section}\n\n`, `${some(50)}. Then *${some(3)}*, [a link](https://example.org/${section}) and ${some(40)}.\n\n`);
    parts.push(Array.from({ length: 8 }, (_, at) => `${at + 1}. ${some(9)}\n   - ${some(5)}\n`).join(''), '\n');
    parts.push(`\`\`\`python\n${Array.from({ length: 14 }, () => `${some(1)} = [${next(9)}, ${next(9)}]  # ${some(5)}\n`).join('')}\`\`\`\n\n`);
    parts.push(`> ${some(20)}\n\n`);
  }
  parts.push('The very end.\n');
  // Pieces of about four characters, as tokens are.
  return parts.join('').match(/[\s\S]{1,4}/g)!;
}

/** Runs in the page: times of drawing one fixed table, ms, sorted; says how fast this machine is at this moment. */
export async function reference(runs: number): Promise<number[]> {
  const row = `<tr>${'<td>word <b>bold</b> word</td>'.repeat(4)}</tr>`;
  const times: number[] = [];
  for (let run = 0; run < runs; run++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const begun = performance.now();
    const frame = document.createElement('div');
    frame.className = 'reference';
    frame.innerHTML = `<table>${row.repeat(400)}</table>`;
    document.body.append(frame);
    void frame.offsetHeight;
    frame.remove();
    times.push(performance.now() - begun);
  }
  return times.sort((a, b) => a - b);
}
