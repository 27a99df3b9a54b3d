// The files of something dropped: those of a folder too, one level deep. Knows no page.

/** More entries of a folder than this are not looked at: it is no adapter's. */
const MOST = 1000;

/** Must be called within the event: what was dropped is gone after it. */
export async function droppedFiles(data: DataTransfer): Promise<File[]> {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const plain = [...data.files];
  const folders = entries.filter((entry) => entry?.isDirectory) as FileSystemDirectoryEntry[];
  const within = await Promise.all(folders.map(filesOf));
  // A folder stands among the plain files as one without content.
  const names = new Set(folders.map(({ name }) => name));
  return [...plain.filter(({ name }) => !names.has(name)), ...within.flat()];
}

async function filesOf(folder: FileSystemDirectoryEntry): Promise<File[]> {
  const reader = folder.createReader();
  const found: FileSystemEntry[] = [];
  for (;;) {
    // A browser gives some hundred at a time.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject)).catch(() => []);
    if (some.length === 0 || found.length > MOST) break;
    found.push(...some);
  }
  const files = found.filter((entry): entry is FileSystemFileEntry => entry.isFile);
  const opened = await Promise.allSettled(files.map((entry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject))));
  return opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}
