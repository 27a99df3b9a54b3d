// Makes live DOM equal to newly rendered DOM by the fewest changes: what did not change keeps its selection, scroll position and layout.

/** Changes the children of `live` into those of `next`, whose nodes may be moved. */
export function sync(live: Node, next: Node): void {
  const wanted = [...next.childNodes];
  wanted.forEach((to, at) => {
    const from = live.childNodes[at];
    if (!from) live.appendChild(to);
    else if (from.isEqualNode(to)) return;
    else if (from instanceof Text && to instanceof Text) {
      if (to.data.startsWith(from.data)) from.appendData(to.data.slice(from.data.length));
      else from.data = to.data;
    } else if (from instanceof Element && to instanceof Element && sameTag(from, to)) sync(from, to);
    else live.replaceChild(to, from);
  });
  while (live.childNodes.length > wanted.length) live.lastChild!.remove();
}

function sameTag(a: Element, b: Element): boolean {
  return a.localName === b.localName && a.attributes.length === b.attributes.length && [...a.attributes].every((one) => b.getAttribute(one.name) === one.value);
}
