//! What is logged, as people write it.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Directives as the logger reads them, if these are some. A word alone must be a level: taken for a
/// target, a misspelled one would leave all else unsaid, errors too.
pub fn directives(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    // Nor is a level left out.
    let is_cut = |word: &str| word.starts_with('=') || word.ends_with('=');
    let is_one =
        |word: &&str| (word.contains(['=', '[']) && !is_cut(word)) || word.parse::<LevelFilter>().is_ok();
    let read = words.join(",");
    let are_some = !words.is_empty() && words.iter().all(is_one) && EnvFilter::try_new(&read).is_ok();
    are_some.then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_target() {
        for text in ["info", "WARN", "off", "info,dramatis::log=debug", "dramatis=info"] {
            assert_eq!(directives(text).as_deref(), Some(text));
        }
        assert_eq!(directives(" info , hyper=off,").as_deref(), Some("info,hyper=off"));
        for text in [
            "",
            " , ",
            "warning",
            "loud",
            "verbose",
            "info,loud",
            "dramatis",
            "dramatis=loud",
            "loud=",
            "loud=,",
            "=info",
        ] {
            assert_eq!(directives(text), None, "{text:?}");
        }
    }
}
