// What the page "Chat" says.
export const chat = {
  title: 'Chat',
};
