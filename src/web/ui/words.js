// A message's words as a reader takes them: which of them are web addresses, and whether there is anything
// to see. Pure: no page, no state.

/** What stands for words that show nothing. */
export const UNSEEN = "No visible text";

// No address goes on past these: blanks, quotes that none may hold, signs without a form of their own (among
// them those that turn the direction), and the stops of scripts that set no blank behind them.
const ADDRESS = /https?:\/\/[^\s<>"`\p{Cc}\p{Cf}\u3000-\u3004\u3008-\u3020\u3030\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff3b\uff3d\uff5b-\uff65]+/giu;
const HAS_HOST = /^https?:\/\/[^/?#]*[\p{L}\p{N}]/iu;
/** Belongs to the sentence where an address ends with it. */
const STOPS = ".,;:!?'‘’“”«»‹›…";
const OPENS = "([{";
const CLOSES = ")]}";

/**
 * Splits a text into plain parts and web addresses, in their order; together they are the text.
 * @returns {{text: string, isAddress: boolean}[]}
 */
export function splitAddresses(text) {
  const parts = [];
  let done = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = withoutEnd(found);
    if (!isAddress(address)) continue;
    if (index > done) parts.push({ text: text.slice(done, index), isAddress: false });
    parts.push({ text: address, isAddress: true });
    done = index + address.length;
  }
  if (done < text.length) parts.push({ text: text.slice(done), isAddress: false });
  return parts;
}

/** Whether a text shows nothing at all: blanks, and signs that have no form of their own. */
export const isUnseen = (text) => /^[\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]*$/u.test(text);

/** The words, or what stands for them where they show nothing. */
export const seen = (text) => (isUnseen(text) ? UNSEEN : text);

// Without what belongs to the sentence around it: its stops, and a bracket that was opened before the address.
function withoutEnd(found) {
  const open = new Map([...CLOSES].map((sign) => [sign, 0])); // by its closing one: opened less closed
  for (const sign of found) {
    const kind = OPENS.indexOf(sign);
    if (kind >= 0) open.set(CLOSES[kind], open.get(CLOSES[kind]) + 1);
    else if (open.has(sign)) open.set(sign, open.get(sign) - 1);
  }
  let end = found.length;
  for (; end > 0; end -= 1) {
    const sign = found[end - 1];
    if (open.get(sign) < 0) open.set(sign, open.get(sign) + 1);
    else if (OPENS.includes(sign)) open.set(CLOSES[OPENS.indexOf(sign)], open.get(CLOSES[OPENS.indexOf(sign)]) - 1);
    else if (!STOPS.includes(sign)) break;
  }
  return found.slice(0, end);
}

function isAddress(text) {
  return HAS_HOST.test(text) && URL.canParse(text);
}
