// The catalogue that is shown. Another language is another file of the same type; nothing else has texts for people.
import { en } from './en';

export type Catalogue = typeof en;
export const LOCALE = 'en-GB';
export const t: Catalogue = en;
