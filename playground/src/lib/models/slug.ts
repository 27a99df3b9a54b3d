// The id that a name gets, as the server makes it (a preview: the server has the last word). Pure.

const MAX_NAME = 64;

/** The id of a new model called `name`: lower case, other characters than a-z, 0-9, `.`, `_`, `-` as `-`, a number behind what is taken. */
export function idOf(name: string, taken: Iterable<string> = []): string {
  const plain = [...name.trim().toLowerCase()].map((character) => (/[a-z0-9._-]/.test(character) ? character : '-')).join('');
  const others = new Set(taken);
  if (!others.has(plain)) return plain;
  for (let number = 2; ; number++) if (!others.has(`${plain}-${number}`)) return `${plain}-${number}`;
}

export type NameProblem = 'empty' | 'long' | 'characters' | 'taken';

/** What is wrong with a name, before the server is asked. `names` are those of the account. */
export function nameProblem(name: string, names: Iterable<string> = []): NameProblem | undefined {
  const plain = name.trim();
  if (!plain) return 'empty';
  if ([...plain].length > MAX_NAME) return 'long';
  if (/[/\u0000-\u001f\u007f-\u009f]/.test(plain)) return 'characters';
  for (const other of names) if (other === plain) return 'taken';
  return undefined;
}

/** A free name for a copy of `parent`: `Nano copy`, `Nano copy 2`, … */
export function copyName(parent: string, names: Iterable<string>): string {
  const taken = new Set([...names].map((name) => name.toLowerCase()));
  const short = [...parent].slice(0, MAX_NAME - 12).join('');
  for (let number = 1; ; number++) {
    const name = number === 1 ? `${short} copy` : `${short} copy ${number}`;
    if (!taken.has(name.toLowerCase())) return name;
  }
}
