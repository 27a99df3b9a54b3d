// What the page "ApiKeys" says.
export const keys = {
  title: 'ApiKeys',
};
