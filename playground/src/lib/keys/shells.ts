// How a key gets into the environment of a shell, and a first request there. Pure; knows no page. The bash lines are run by a test.
import { snippet } from '../code/snippets';

export const SHELLS = ['bash', 'zsh', 'cmd', 'powershell'] as const;
export type Shell = (typeof SHELLS)[number];
export const SHELL_NAMES: Record<Shell, string> = { bash: 'bash', zsh: 'zsh', cmd: 'cmd', powershell: 'PowerShell' };

export interface ShellLines {
  /** For this terminal. */
  session: string;
  /** For those opened later. */
  keep: string;
  /** A first request. */
  first: string;
}

const BODY = { model: 'tiger-nano', messages: [{ role: 'user', content: 'What is the capital of Peru?' }] };

/** The lines for a shell. A key is `tiger_` and base64url characters, so that it needs no quoting anywhere. */
export function shellLines(shell: Shell, key: string, origin: string): ShellLines {
  const url = `${origin}/v1/generate_response`;
  const body = JSON.stringify(BODY);
  switch (shell) {
    case 'bash':
    case 'zsh':
      return {
        session: `export TIGER_API_KEY=${key}`,
        keep: `(umask 077; echo ${key} > ~/.tiger_key)\necho 'export TIGER_API_KEY=$(cat ~/.tiger_key)' >> ~/.${shell}rc`,
        first: snippet({ method: 'POST', path: '/v1/generate_response', body: BODY }, 'curl', origin),
      };
    case 'cmd':
      return {
        session: `set TIGER_API_KEY=${key}`,
        keep: `setx TIGER_API_KEY ${key}`,
        first: `curl ${url} ^\n  -H "Authorization: Bearer %TIGER_API_KEY%" ^\n  -H "Content-Type: application/json" ^\n  -d "${body.replaceAll('"', '\\"')}"`,
      };
    case 'powershell':
      // Not curl: Windows PowerShell drops the quotation marks inside arguments of other programs.
      return {
        session: `$Env:TIGER_API_KEY = "${key}"`,
        keep: `[Environment]::SetEnvironmentVariable("TIGER_API_KEY", "${key}", "User")`,
        first: `Invoke-RestMethod ${url} -Method Post \`\n  -Headers @{ Authorization = "Bearer $Env:TIGER_API_KEY" } \`\n  -ContentType "application/json" \`\n  -Body '${body}'`,
      };
  }
}

/** The shell that somebody on this kind of machine most likely has. */
export function likelyShell(platform: string): Shell {
  if (/^Win/i.test(platform)) return 'powershell';
  return /^(Mac|iP)/i.test(platform) ? 'zsh' : 'bash';
}
