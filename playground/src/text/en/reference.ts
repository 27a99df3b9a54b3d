// What the page "API reference" says.
export const reference = {
  title: 'API reference',
};
