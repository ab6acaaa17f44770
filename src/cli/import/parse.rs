//! One line of a chat log, read as what it says. Pure: no room, no membership, no clock.

use std::borrow::Cow;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Somebody said or did something.
    Message(Message<'a>),
    /// `=== …`
    System(System<'a>),
}

/// A message: `[12:30] <alice> hello`, `[12:30]  * alice waves`, or the same after a channel
/// and a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Who.
    pub(super) nick: Cow<'a, str>,
    /// The words, verbatim.
    pub(super) text: &'a str,
    /// Done, not said.
    pub(super) action: bool,
    /// Milliseconds since midnight.
    pub(super) time_ms: i64,
    /// The channel and date that the line itself names.
    pub(super) place: Option<(&'a str, jiff::civil::Date)>,
}

/// A line of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum System<'a> {
    /// `=== alice has joined #ubuntu`
    Joined(Cow<'a, str>),
    /// `=== alice has left #ubuntu ["bye"]`
    Left(Cow<'a, str>, Option<&'a str>),
    /// `=== alice is now known as alice_`
    Renamed(Cow<'a, str>, Cow<'a, str>),
    /// `=== mode/#ubuntu [+o alice]  by bob`
    Mode,
    /// `=== Topic for #ubuntu: …` and other forms of it.
    Topic,
    /// `=== alice was kicked off #ubuntu by bob (…)`: who, and `bob (…)`
    Kicked(Cow<'a, str>, &'a str),
    /// Anything else: the older logs write actions in this form.
    Other,
}

impl System<'_> {
    /// The kind's name in a summary.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Joined(_) => "joined",
            Self::Left(..) => "left",
            Self::Renamed(..) => "renamed",
            Self::Mode => "mode",
            Self::Topic => "topic",
            Self::Kicked(..) => "kick",
            Self::Other => "other",
        }
    }
}

/// What a line should have looked like.
const EXPECTED: &str = "expected `[HH:MM] <nick> text`, `[HH:MM]  * nick action`, `=== …`, or \
                        `channel YYYY-MM-DD [HH:MM:SS] <nick> text`";

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Decodes a line: UTF-8, or else Windows-1252, which gives every byte a character. The line's
/// end (`\n` or `\r\n`) is no part of it.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    // Some editors begin a file with it.
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0,
    }
}

/// Reads one decoded line; the error says what was expected and what came.
pub(super) fn parse(line: &str) -> Result<Line<'_>, String> {
    if let Some(rest) = line.strip_prefix("===") {
        return Ok(Line::System(system(rest.trim())));
    }
    let (place, stamped) = if line.starts_with('[') { (None, line) } else { placed(line)? };
    let unknown = || format!("{EXPECTED}; got {:?}", shown(line));
    let (clock, rest) =
        stamped.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(unknown)?;
    let time_ms = time_of_day_ms(clock)
        .ok_or_else(|| format!("expected a time from [00:00] to [23:59:59], got [{}]", shown(clock)))?;
    let (nick, text, action) = spoken(rest).or_else(|| done(rest)).ok_or_else(unknown)?;
    Ok(Line::Message(Message { nick: joined_up(nick), text, action, time_ms, place }))
}

/// A line's start for an error message.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    text.chars().take(CHARS_MAX).collect()
}

type Place<'a> = Option<(&'a str, jiff::civil::Date)>;

/// `channel YYYY-MM-DD [` …
fn placed(line: &str) -> Result<(Place<'_>, &str), String> {
    let unknown = || format!("{EXPECTED}; got {:?}", shown(line));
    let (channel, rest) = line.split_once(' ').ok_or_else(unknown)?;
    let (date, rest) = rest.split_once(' ').filter(|(_, rest)| rest.starts_with('[')).ok_or_else(unknown)?;
    let date = date.parse().map_err(|_| format!("expected a date YYYY-MM-DD, got {:?}", shown(date)))?;
    if channel.is_empty() {
        return Err(unknown());
    }
    Ok((Some((channel, date)), rest))
}

/// `HH:MM` or `HH:MM:SS`.
fn time_of_day_ms(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':').map(|part| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<i64>().ok()).flatten()
    });
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = match parts.next() {
        None => 0,
        Some(seconds) => seconds?,
    };
    let valid = parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 60;
    valid.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000)
}

/// ` <nick> text`; the text may be missing altogether.
fn spoken(rest: &str) -> Option<(&str, &str, bool)> {
    let (nick, text) = rest.strip_prefix(" <")?.split_once('>')?;
    let text = if text.is_empty() { text } else { text.strip_prefix(' ')? };
    (!nick.is_empty()).then_some((nick, text, false))
}

/// ` * nick action`, after one space or two.
fn done(rest: &str) -> Option<(&str, &str, bool)> {
    let rest = rest.strip_prefix("  * ").or_else(|| rest.strip_prefix(" * "))?;
    let (nick, text) = rest.split_once(' ').unwrap_or((rest, ""));
    (!nick.is_empty()).then_some((nick, text, true))
}

/// A nick without the space that some log writers put after each `]`: no nick holds a space.
fn joined_up(nick: &str) -> Cow<'_, str> {
    if nick.contains("] ") { Cow::Owned(nick.replace("] ", "]")) } else { Cow::Borrowed(nick) }
}

/// The nick of a system line: `alice`, or `alice [n=alice@host]` in older ones.
fn whose(text: &str) -> Option<Cow<'_, str>> {
    let host = text.trim_end().strip_suffix(']').and_then(|rest| rest.rsplit_once(" ["));
    let text = host.filter(|(_, host)| host.contains('@')).map_or(text, |(nick, _)| nick);
    // The space after a last `]` goes too.
    let nick = joined_up(text.trim());
    (!nick.is_empty() && !nick.contains(' ')).then_some(nick)
}

fn system(rest: &str) -> System<'_> {
    if let Some((old, new)) = rest.split_once(" is now known as ")
        && let (Some(old), Some(new)) = (whose(old), whose(new))
    {
        return System::Renamed(old, new);
    }
    if let Some((who, channel)) = rest.split_once(" has joined ")
        && let (Some(nick), true) = (whose(who), is_channel(channel))
    {
        return System::Joined(nick);
    }
    if let Some((who, rest)) = rest.split_once(" has left ") {
        let (channel, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let bracketed = reason.is_empty() || (reason.starts_with('[') && reason.ends_with(']'));
        if let (Some(nick), true) = (whose(who), is_channel(channel) && bracketed) {
            return System::Left(nick, reason_of(reason));
        }
    }
    if let Some((who, told)) = rest.split_once(" was kicked ")
        && let (Some(nick), Some(by)) = (whose(who), kicked_by(told))
    {
        return System::Kicked(nick, by);
    }
    let (nick, said) = rest.split_once(' ').unwrap_or((rest, ""));
    if nick.starts_with("mode/") {
        System::Mode
    } else if is_topic(nick, said) {
        System::Topic
    } else {
        System::Other
    }
}

fn is_topic(nick: &str, said: &str) -> bool {
    let told = said.starts_with("for ") || said.starts_with('(') || said.starts_with("set by ");
    nick.contains("[topic/")
        || (nick == "Topic" && told)
        || said.starts_with("changed the topic of ")
        || said.starts_with("has changed the topic ")
}

/// `bob (…)` of `off #ubuntu by bob (…)`, or of `by bob (…)`.
fn kicked_by(told: &str) -> Option<&str> {
    let told = match told.strip_prefix("off ") {
        Some(rest) => rest.split_once(' ').filter(|(channel, _)| is_channel(channel))?.1,
        None => told,
    };
    let by = told.strip_prefix("by ")?;
    let (who, is_whole) = by.split_once(" (").map_or((by, true), |(who, why)| (who, why.ends_with(')')));
    (is_whole && whose(who).is_some()).then_some(by)
}

fn is_channel(text: &str) -> bool {
    text.len() > 1 && text.starts_with(['#', '&']) && !text.contains(' ')
}

/// The words inside `["bye"]`.
fn reason_of(bracketed: &str) -> Option<&str> {
    let inner = bracketed.strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(inner).trim();
    (!inner.is_empty()).then_some(inner)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;

    fn said(line: &str) -> (String, String, bool, i64) {
        match parse(line).unwrap() {
            Line::Message(m) => (m.nick.into_owned(), m.text.to_owned(), m.action, m.time_ms / 60_000),
            Line::System(system) => panic!("{line:?} is {system:?}"),
        }
    }

    fn told(line: &str) -> System<'_> {
        match parse(line).unwrap() {
            Line::System(system) => system,
            Line::Message(message) => panic!("{line:?} is {message:?}"),
        }
    }

    #[test]
    fn messages_keep_their_text() {
        for (line, nick, text, action, minute) in [
            ("[12:30] <alice> hello", "alice", "hello", false, 750),
            ("[00:00] <a|b>   spaced  ", "a|b", "  spaced  ", false, 0),
            ("[12:15] <opteron>", "opteron", "", false, 735),
            ("[12:15] <opteron> ", "opteron", "", false, 735),
            ("[02:02] <Linforcer> change >.>", "Linforcer", "change >.>", false, 122),
            ("[23:59]  * AdemoS on retrospect", "AdemoS", "on retrospect", true, 1439),
            ("[23:59]  * AdemoS", "AdemoS", "", true, 1439),
            ("[03:24] <zcat[1] > hi", "zcat[1]", "hi", false, 204),
            ("[03:24] <[N] ame> [a] b", "[N]ame", "[a] b", false, 204),
            ("[03:24] <c>     *  finally", "c", "    *  finally", false, 204),
        ] {
            assert_eq!(said(line), (nick.to_owned(), text.to_owned(), action, minute), "{line}");
        }
    }

    #[test]
    fn the_second_form_names_channel_and_date() {
        for (line, action) in [
            ("#ubuntu 2010-03-08 [01:02:03] <bob> hi there", false),
            ("#ubuntu 2010-03-08 [01:02:03]  * bob hi there", true),
        ] {
            let Line::Message(message) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!(message.place, Some(("#ubuntu", "2010-03-08".parse().unwrap())));
            assert_eq!((message.time_ms, message.action), (3_723_000, action));
            assert_eq!((&*message.nick, message.text), ("bob", "hi there"));
        }
    }

    #[test]
    fn system_lines_tell_their_kind() {
        for (line, wanted) in [
            ("=== tuxx has joined #ubuntu", System::Joined("tuxx".into())),
            ("=== tuxx has joined #UBUNTU", System::Joined("tuxx".into())),
            ("=== olinho [n=bolinho@201.67.184.74] has joined #ubuntu", System::Joined("olinho".into())),
            ("=== brad[]  [~brad@209.161.225.22]  has joined #ubuntu", System::Joined("brad[]".into())),
            ("=== [N] ame [n=name@207.178.157.90]  has joined #ubuntu", System::Joined("[N]ame".into())),
            ("=== gNk[zZz]  is now known as [N] k", System::Renamed("gNk[zZz]".into(), "[N]k".into())),
            ("=== [x] left has left #ubuntu [\"a] b\"]", System::Left("[x]left".into(), Some("a] b"))),
            ("=== topyli has left #ubuntu []", System::Left("topyli".into(), None)),
            ("=== topyli has left #Ubuntu", System::Left("topyli".into(), None)),
            ("=== DAC has left #ubuntu [\"\"Buy.]", System::Left("DAC".into(), Some("\"\"Buy."))),
            ("=== Golo has left #ubuntu [\"Abandonando\"]", System::Left("Golo".into(), Some("Abandonando"))),
            ("=== a is now known as b", System::Renamed("a".into(), "b".into())),
            ("=== mode/#ubuntu [+o Seveas]  by ChanServ", System::Mode),
            ("=== ..[topic/#ubuntu:Seveas] : Official help", System::Topic),
            ("=== Topic for #ubuntu: help", System::Topic),
            (
                "=== troll was kicked off #ubuntu by Seveas (bye)",
                System::Kicked("troll".into(), "Seveas (bye)"),
            ),
            ("=== [N] ame was kicked by ChanServ", System::Kicked("[N]ame".into(), "ChanServ")),
            ("=== bob was kicked off the sofa by alice (ow)", System::Other),
            ("=== bob was kicked by a horse", System::Other),
            ("=== Matt| scrolls up", System::Other),
            ("=== bob has joined the army", System::Other),
            ("=== bob has left #ubuntu for good", System::Other),
            ("=== bob is now known as the king", System::Other),
            ("===", System::Other),
        ] {
            assert_eq!(told(line), wanted, "{line}");
        }
    }

    #[test]
    fn other_lines_say_what_was_expected() {
        for (line, wanted) in [
            ("", "expected `[HH:MM] <nick> text`"),
            ("hello", "got \"hello\""),
            ("[12:30] alice: hello", "expected `[HH:MM] <nick> text`"),
            ("[12:30] <> hello", "expected `[HH:MM] <nick> text`"),
            ("[24:00] <alice> hello", "got [24:00]"),
            ("[1:30] <alice> hello", "got [1:30]"),
            ("[12:30:61] <alice> hello", "got [12:30:61]"),
            ("#ubuntu 2010-13-08 [01:02:03] <bob> hi", "expected a date YYYY-MM-DD, got \"2010-13-08\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn lines_are_utf_8_or_else_windows_1252() {
        assert_eq!(decode("[12:30] <a> é\r\n".as_bytes()), "[12:30] <a> é");
        assert_eq!(decode(b"[12:30] <a> \xe9 \x80\n"), "[12:30] <a> é €");
        assert_eq!(decode(b"\x81"), "\u{81}");
        assert_eq!(decode("\u{feff}[12:30] <a> é\n".as_bytes()), "[12:30] <a> é");
    }
}
