// What the page "Usage" says.
export const usage = {
  title: 'Usage',
};
