// The page's parts that need no page: addresses in a text, words that show nothing, and how old a day is.

import assert from "node:assert/strict";
import { test } from "node:test";

import { dayText, shortTime } from "../../src/web/ui/dom.js";
import { UNSEEN, isUnseen, seen, splitAddresses } from "../../src/web/ui/words.js";

const addresses = (text) => {
  const parts = splitAddresses(text);
  assert.equal(parts.map((part) => part.text).join(""), text, "nothing is lost");
  return parts.filter(({ isAddress }) => isAddress).map((part) => part.text);
};

const A = "https://example.org/a";

for (const [what, text, ...expected] of [
  ["no address", "words, and http:// or https://. or https://?a", ],
  ["one alone", A, A],
  ["one among words", `see ${A} and http://b.example`, A, "http://b.example"],
  ["one letter for a host's name", "http://b", "http://b"],
  ["a scheme in capitals", "HTTPS://EXAMPLE.ORG/A", "HTTPS://EXAMPLE.ORG/A"],
  ["stops of the sentence", `${A}. ${A}, ${A}; ${A}: ${A}! ${A}? ${A}... ${A}…`, ...Array(8).fill(A)],
  ["stops within it", "https://example.org/a.b,c;d:e!f?g=h'i", "https://example.org/a.b,c;d:e!f?g=h'i"],
  ["quotes", `"${A}" '${A}' “${A}” «${A}» \`${A}\` <${A}>`, ...Array(6).fill(A)],
  ["brackets of its own", "https://en.wikipedia.org/wiki/Rust_(programming_language)", "https://en.wikipedia.org/wiki/Rust_(programming_language)"],
  ["brackets of its own, and a stop", "It is https://example.org/b_(c).", "https://example.org/b_(c)"],
  ["brackets around it", `(${A}) [${A}] {${A}} (see ${A}).`, ...Array(4).fill(A)],
  ["brackets around and of its own", "(https://example.org/b_(c))", "https://example.org/b_(c)"],
  ["brackets that follow it", `[words](${A}) ${A}( ${A}).`, A, A, A],
  ["an address by its number", "http://[::1]:8080/a (http://[::1])", "http://[::1]:8080/a", "http://[::1]"],
  ["a sentence that follows without a blank", `${A}。次の文 ${A}、次 ${A}！ ${A}（次） 「${A}」 ${A}｡ｱ`, ...Array(6).fill(A)],
  ["letters of every script", "https://ja.wikipedia.org/wiki/日本々 https://example.org/ä", "https://ja.wikipedia.org/wiki/日本々", "https://example.org/ä"],
  ["signs that turn the direction", `\u2067${A}\u2069 \u202b${A}\u202c \u200f${A}\u200f ${A}\u2066b`, A, A, A, A],
  ["signs that show nothing", `${A}\u200b ${A}\u200bb ${A}\ufeff ${A}\u0000b`, A, A, A, A],
  ["one that no browser goes to", "https://exa%mple.org http://[:] http://a:b:c"],
]) {
  test(`addresses in a text: ${what}`, () => assert.deepEqual(addresses(text), expected));
}

test("addresses are found at once in a text made to be slow", () => {
  for (const part of [")", "(", ".", "https://", "https://a)", "https://a.("]) addresses(`${A}${part.repeat(20_000)}`);
});

test("words that show nothing are told from those that show something", () => {
  for (const text of ["", " \n", "\u200b", "\u200b\u2060\ufeff", "\u00ad", "\u3164", "\u2800", "\u202e\u202c", "\ufe0f", "\u0000"]) {
    assert.equal(isUnseen(text), true, JSON.stringify(text));
    assert.equal(seen(text), UNSEEN);
  }
  for (const text of [".", "\u200ba", "👩‍👩‍👧", "❤️", "ب", "\u0301"]) assert.equal(seen(text), text);
});

test("a day is told by its name, its month or its year, as far back as it is", () => {
  const now = new Date(2026, 2, 1, 12);
  assert.match(shortTime(new Date(2026, 2, 1, 9, 5), now), /09.05/);
  assert.equal(shortTime(new Date(2026, 1, 28, 9), now), "Yesterday");
  assert.doesNotMatch(shortTime(new Date(2026, 0, 1), now), /2026/);
  for (const year of [2025, 2015]) assert.match(shortTime(new Date(year, 10, 26), now), new RegExp(`26.*${year}|${year}.*26`));
  assert.equal(shortTime(new Date(2025, 11, 31, 23), new Date(2026, 0, 1, 1)), "Yesterday");
  assert.equal(dayText(now, now), "Today");
});
