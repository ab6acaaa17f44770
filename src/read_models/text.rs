//! The words of a text, cut in the same way for every engine: what a search finds does not
//! depend on the store.
//!
//! A word is a run of letters, digits and their marks, in lower case and without the accents of
//! Latin, Greek and Cyrillic. Chinese characters and Japanese kana are words by themselves, as
//! nothing there separates words. All else separates.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::ReadModelError;
use super::names::unfit;

/// The most words that one search may ask for.
pub const SEARCH_WORDS_MAX: usize = 32;

/// The words of a text, joined by one space.
pub fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut inside = false;
    for letter in letters(text) {
        // The voice marks of kana belong to what they follow.
        let alone = stands_alone(letter) && !is_combining_mark(letter);
        if letter.is_alphanumeric() || (inside && is_combining_mark(letter)) {
            if !words.is_empty() && (alone || !inside) {
                words.push(' ');
            }
            words.push(letter);
            inside = !alone;
        } else {
            inside = false;
        }
    }
    words
}

/// What a search asks for: each phrase, words joined by one space, must occur as it is. Text
/// in double quotes is one phrase, and so is each run of characters between blanks: `don't`
/// asks for `don t`, `"good evening" all` for `good evening` and `all`.
pub fn phrases(search: &str) -> Result<Vec<String>, ReadModelError> {
    let mut phrases = Vec::new();
    for (number, part) in search.split('"').enumerate() {
        if number % 2 == 1 {
            phrases.push(words(part));
        } else {
            phrases.extend(part.split_whitespace().map(words));
        }
    }
    phrases.retain(|phrase| !phrase.is_empty());
    let asked: usize = phrases.iter().map(|phrase| phrase.split(' ').count()).sum();
    if asked > SEARCH_WORDS_MAX {
        return Err(unfit("a search", "at most 32 words", &format!("{asked} words")));
    }
    Ok(phrases)
}

/// That a build has no text fields.
pub(super) fn not_searched(collection: &str) -> ReadModelError {
    unfit("a search", "a build whose projection declares text fields", collection)
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    let accents = '\u{300}'..='\u{36f}';
    text.nfkd().filter(move |letter| !accents.contains(letter)).flat_map(char::to_lowercase).nfc()
}

/// Han and kana, by their main blocks.
fn stands_alone(letter: char) -> bool {
    matches!(letter,
        '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_cut_into_words() {
        for (text, expected) in [
            ("", ""),
            (" ...?! ", ""),
            ("Good evening, ALL!", "good evening all"),
            ("don't foo_bar x-1.5", "don t foo bar x 1 5"),
            ("Crème BRÛLÉE, Ångström, Ёлка", "creme brulee angstrom елка"),
            ("ﬁne ①", "fine 1"),
            ("私は日本人abc", "私 は 日 本 人 abc"),
            ("हिन्दी में", "हिन्दी में"),
            ("a😂b", "a b"),
            ("ᮀ\u{3099}", "ᮀ\u{3099}"),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn searches_are_cut_into_phrases() {
        for (search, expected) in [
            ("", vec![]),
            ("\"\" ?", vec![]),
            ("Good Evening", vec!["good", "evening"]),
            ("\"Good  Evening\" all", vec!["good evening", "all"]),
            ("don't \"no end", vec!["don t", "no end"]),
            ("日本", vec!["日 本"]),
        ] {
            assert_eq!(phrases(search).unwrap(), expected, "{search:?}");
        }
        let many = "a ".repeat(SEARCH_WORDS_MAX);
        assert_eq!(phrases(&many).unwrap().len(), SEARCH_WORDS_MAX);
        assert!(phrases(&format!("{many} \"b c\"")).is_err());
    }

    proptest! {
        #[test]
        fn words_are_words_of_themselves(text in any::<String>()) {
            let once = words(&text);
            prop_assert_eq!(&words(&once), &once);
            prop_assert!(!once.contains("  ") && !once.starts_with(' ') && !once.ends_with(' '));
        }
    }
}
