// Colours of the page's tokens as a canvas takes them: `light-dark(…)` and `var(…)` resolved for the theme of now.

/** The colour of a token such as `--accent`, as seen at `element`. */
export function colourOf(token: string, element: Element): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${token})`;
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** The same colour, lighter: `rgb(1, 2, 3)` with an alpha. */
export function faded(colour: string, alpha: number): string {
  const parts = /rgba?\(([^)]+)\)/.exec(colour)?.[1]?.split(/[ ,/]+/).slice(0, 3);
  return parts ? `rgba(${parts.join(', ')}, ${alpha})` : colour;
}
