// Everything that the page says, in English; each page has its own part.
import { account } from './en/account';
import { chat } from './en/chat';
import { common } from './en/common';
import { importing } from './en/importing';
import { keys } from './en/keys';
import { models } from './en/models';
import { reference } from './en/reference';
import { teach } from './en/teach';
import { usage } from './en/usage';

export const en = { ...common, account, chat, importing, keys, models, reference, teach, usage };
