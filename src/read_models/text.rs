//! The words of a text, cut in the same way for every engine: what a search finds does not
//! depend on the store.
//!
//! A word is a run of letters, digits and their marks, in lower case and without what is written or left
//! out as one likes: the accents of Latin, Greek and Cyrillic, the points of Hebrew, Arabic and Syriac, and
//! what nobody sees, such as the sign that has a heart shown in red. Where nothing separates words, each letter with its marks is one by
//! itself: Chinese characters, Japanese kana, Thai, Lao, Burmese and Khmer. So is each emoji, whatever
//! its skin; it is spelt, as `emoji1f602`, since engines take signs for what separates. All else
//! separates.

use std::fmt::Write as _;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::ReadModelError;
use super::names::unfit;

/// The most phrases that one search may ask for; a word by itself is one.
pub const SEARCH_PHRASES_MAX: usize = 32;
/// The most words that they may have together: where nothing separates words, each letter is one.
pub const SEARCH_WORDS_MAX: usize = 256;

/// The words of a text, joined by one space.
pub fn words(text: &str) -> String {
    if text.is_ascii() { plain_words(text) } else { any_words(text) }
}

/// The same of a text in ASCII, in which nothing has marks, parts or another order.
fn plain_words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words.make_ascii_lowercase();
    words
}

fn any_words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut after = After::Nothing;
    for letter in letters(text) {
        let is_mark = is_combining_mark(letter);
        let alone = !is_mark && stands_alone(letter);
        let is_word = letter.is_alphanumeric() || (is_mark && after != After::Nothing);
        let is_emoji = !is_word && is_emoji(letter);
        let joins = match after {
            After::Nothing => false,
            After::Alone => is_mark,
            After::Letter => is_word && !alone,
        };
        if (is_word || is_emoji) && !joins && !words.is_empty() {
            words.push(' ');
        }
        after = match after {
            _ if !is_word => After::Nothing,
            After::Alone if is_mark => After::Alone,
            _ if alone => After::Alone,
            _ => After::Letter,
        };
        if is_word {
            words.push(letter);
        } else if is_emoji {
            let _ = write!(words, "emoji{:x}", u32::from(letter));
        }
    }
    words
}

/// What a letter comes after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    /// One that stands alone, with its marks.
    Alone,
    Letter,
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
    let asked = phrases.len();
    if asked > SEARCH_PHRASES_MAX {
        let expected = "at most 32 words, or phrases in double quotes";
        return Err(unfit("a search", expected, &format!("{asked} of them")));
    }
    let asked: usize = phrases.iter().map(|phrase| phrase.split(' ').count()).sum();
    if asked > SEARCH_WORDS_MAX {
        let expected = "at most 256 words, or letters where nothing separates words";
        return Err(unfit("a search", expected, &format!("{asked} of them")));
    }
    Ok(phrases)
}

/// That a build has no text fields.
pub(super) fn not_searched(collection: &str) -> ReadModelError {
    unfit("a search", "a build whose projection declares text fields", collection)
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    let letters = text.nfkd().filter(|letter| !is_optional(*letter)).flat_map(char::to_lowercase);
    // A sigma at the end of a word is the same letter, and has no capital of its own.
    letters.map(|letter| if letter == 'ς' { 'σ' } else { letter }).nfc()
}

/// What a word is the same without. Of the marks over Arabic letters, hamza and madda make others of them.
fn is_optional(letter: char) -> bool {
    let accents = matches!(letter, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}');
    let hebrew = matches!(
        letter,
        '\u{591}'
            ..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}' | '\u{fb1e}'
    );
    let arabic = matches!(letter,
        '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{652}' | '\u{656}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}'
        | '\u{897}'..='\u{89f}' | '\u{8ca}'..='\u{8e1}' | '\u{8e3}'..='\u{8ff}');
    let syriac = matches!(letter, '\u{711}' | '\u{730}'..='\u{74a}');
    // Boxes and circles about signs, selectors of how a sign is shown, and what directs lines of text.
    let unseen = matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200d}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}');
    accents || hebrew || arabic || syriac || unseen
}

/// The blocks of pictures and signs in which emoji are; modifiers of the skin are none by themselves.
fn is_emoji(letter: char) -> bool {
    matches!(letter,
        '\u{2300}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}'
        | '\u{1f000}'..='\u{1f3fa}' | '\u{1f400}'..='\u{1faff}')
        && !letter.is_alphanumeric()
}

/// Han and kana, and the letters of the south east of Asia, by their main blocks.
fn stands_alone(letter: char) -> bool {
    matches!(letter,
        '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}'
        | '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
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
            ("ο δρόμος ΔΡΟΜΟΣ", "ο δρομοσ δρομοσ"),
            ("私は日本人abc", "私 は 日 本 人 abc"),
            ("हिन्दी में", "हिन्दी में"),
            ("a😂b", "a emoji1f602 b"),
            ("👍🏽👍 ❤️", "emoji1f44d emoji1f44d emoji2764"),
            ("👩\u{200d}💻", "emoji1f469 emoji1f4bb"),
            ("1\u{fe0f}\u{20e3}2 a\u{fe0f}b x\u{ad}y", "12 ab xy"),
            ("مُحَمَّد محمـــد أَب", "محمد محمد أب"),
            ("שָׁלוֹם", "שלום"),
            ("کتاب\u{200c}ها", "کتاب ها"),
            ("สวัสดี", "ส วั ส ดี"),
            ("ກ\u{eb4}ນ က\u{102d}\u{102f}", "ກ\u{eb4} ນ က\u{102d}\u{102f}"),
            ("ខ\u{17d2}មែរ 7", "ខ\u{17d2} មែ រ 7"),
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
        let many = "a ".repeat(SEARCH_PHRASES_MAX);
        assert_eq!(phrases(&many).unwrap().len(), SEARCH_PHRASES_MAX);
        let error = phrases(&format!("{many} b")).unwrap_err().to_string();
        assert!(error.contains("at most 32 words") && error.contains("33 of them"), "{error}");
        for letters in ["日", "ส", "a "] {
            let long = format!("\"{}\"", letters.repeat(SEARCH_WORDS_MAX));
            assert_eq!(phrases(&long).unwrap().len(), 1, "{letters} many times is one phrase");
            let error = phrases(&format!("{long} b")).unwrap_err().to_string();
            assert!(error.contains("at most 256 words") && error.contains("257 of them"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_text_in_ascii_is_cut_as_any_other(text in "[ -~\\t\\n\\x00\\x7f]*") {
            prop_assert_eq!(plain_words(&text), any_words(&text));
        }

        #[test]
        fn words_are_words_of_themselves(text in any::<String>()) {
            let once = words(&text);
            prop_assert_eq!(&words(&once), &once);
            prop_assert!(!once.contains("  ") && !once.starts_with(' ') && !once.ends_with(' '));
        }
    }
}
