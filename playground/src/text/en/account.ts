// What the page "Account" says.
export const account = {
  title: 'Account',
};
