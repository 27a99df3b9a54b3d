// What was dropped: files, and the files of folders.
import { expect, test } from 'vitest';
import { droppedFiles } from './dropped';

const file = (name: string) => new File(['x'], name);

const fileEntry = (name: string, readable = true) => ({
  isFile: true,
  isDirectory: false,
  name,
  file: (give: (file: File) => void, fail: (error: Error) => void) => (readable ? give(file(name)) : fail(new Error('gone'))),
});

/** A folder that gives its entries two at a time, as browsers do by the hundred. */
function folder(name: string, entries: object[]) {
  const createReader = () => {
    let at = 0;
    return { readEntries: (give: (entries: object[]) => void) => give(entries.slice(at, (at += 2))) };
  };
  return { isFile: false, isDirectory: true, name, createReader };
}

const data = (entries: ({ name: string; isFile: boolean } | null)[], plain: File[]) =>
  ({ items: entries.map((entry) => ({ webkitGetAsEntry: () => entry })), files: plain }) as unknown as DataTransfer;

const names = async (dropped: DataTransfer) => (await droppedFiles(dropped)).map(({ name }) => name);

test('files are as they are', async () => {
  expect(await names(data([fileEntry('a'), null], [file('a'), file('b')]))).toEqual(['a', 'b']);
});

test('a folder is its files, not those of folders in it', async () => {
  const within = [fileEntry('a'), folder('deeper', [fileEntry('x')]), fileEntry('b'), fileEntry('gone', false), fileEntry('c')];
  expect(await names(data([folder('adapter', within), fileEntry('d')], [file('adapter'), file('d')]))).toEqual(['d', 'a', 'b', 'c']);
});

test('a folder without end is not read to it', async () => {
  const endless = { ...folder('all', []), createReader: () => ({ readEntries: (give: (entries: object[]) => void) => give(Array(100).fill(fileEntry('x'))) }) };
  expect((await names(data([endless], [file('all')]))).length).toBeLessThan(1300);
});
