// What the page "Teach" says.
export const teach = {
  title: 'Teach',
};
