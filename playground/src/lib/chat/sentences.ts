// Cuts growing text into sentences to be read aloud: a screen reader that hears every token hears nothing. Pure.

/** Ends of sentences and of lines; a dot inside a number or before a small letter is none. */
const END = /[.!?…]["'”’)\]]*(?=\s+(?![a-z]))|\n+|[。！？]/g;

/** The complete sentences of `text` from `from` on, and where the next begins. With `last`, the rest is complete too. */
export function sentencesFrom(text: string, from: number, last: boolean): { said: string; next: number } {
  if (last) return { said: plain(text.slice(from)), next: text.length };
  let next = from;
  END.lastIndex = from;
  for (let match = END.exec(text); match; match = END.exec(text)) next = match.index + match[0].length;
  return { said: plain(text.slice(from, next)), next };
}

/** Without the signs of Markdown that would be spelt out. */
function plain(text: string): string {
  return text
    .replace(/^\s*(#{1,6}|[-*+>]|```\S*)\s*/gm, '')
    .replace(/[*`]+/g, '')
    .replace(/[_|]+/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}
