import { expect, test } from 'vitest';
import { sentencesFrom } from './sentences';

test('only whole sentences, each once', () => {
  const text = 'It is 3.5 metres. That is **long**! And';
  const first = sentencesFrom(text, 0, false);
  expect(first.said).toBe('It is 3.5 metres. That is long!');
  expect(sentencesFrom(text, first.next, false).said).toBe('');
  expect(sentencesFrom(`${text} so`, first.next, true).said).toBe('And so');
});

test('joined, the pieces are the whole at every cut', () => {
  const text = '# Title\n\nOne, e.g. this. Two?\n- three\n';
  let next = 0;
  let said = '';
  for (let cut = 1; cut <= text.length; cut++) {
    const step = sentencesFrom(text.slice(0, cut), next, cut === text.length);
    said += ` ${step.said}`;
    next = step.next;
  }
  expect(said.replace(/\s+/g, ' ').trim()).toBe('Title One, e.g. this. Two? three');
});
