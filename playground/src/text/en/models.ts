// What the page "Models" says.
export const models = {
  title: 'Models',
};
