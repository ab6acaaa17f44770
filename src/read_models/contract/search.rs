//! Full-text search: the same words find the same documents in every store.

use dramatis_projections::TextField;

use super::{Direction, KIND, NewBuild, ReadModelError, ReadModels, SIZE, Value, batch, keys_of, new_build};
use crate::read_models::Search;
use crate::read_models::text::SEARCH_WORDS_MAX;

const TEXT: &[TextField] = &[TextField { name: "title", weight: 10 }, TextField { name: "body", weight: 1 }];

pub(super) async fn run(store: &dyn ReadModels) {
    let refused = store.create(new_build("unread@1")).await.and(store.search("unread@1", words("cat")).await);
    assert!(refused.is_err(), "a build without text fields is not searched: {refused:?}");
    store.create(NewBuild { text: TEXT, ..new_build("texts@1") }).await.unwrap();
    store.create(NewBuild { text: TEXT, ..new_build("texts@1") }).await.unwrap();
    let document = |title: &str, body: &str, size: i64| {
        serde_json::json!({"kind": if size > 3 { "big" } else { "small" }, "size": size, "title": title,
            "body": body, "language": "french", "rank": size, "key": "none"})
        .to_string()
    };
    let documents = [
        ("r/1", document("Cats", "A cat sat on the mat.", 1)),
        ("r/2", document("Good evening", "All the cats, and the DOG; crème brûlée", 2)),
        ("r/3", document("", "concatenate evening good catalogue's", 3)),
        ("r/4", document("mat", "don't run, dogs run", 4)),
        ("r/5", document("\u{65e5}\u{672c}\u{8a9e}", "mat mat mat", 5)),
        ("s/6", document("Cat", "nothing else", 6)),
        ("s/7", serde_json::json!({"kind": "odd", "size": 7, "title": {"cat": "cat"}}).to_string()),
        // Apart by a vowel sign alone, and letters that came late to Unicode.
        ("s/8", document("\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}", "", 8)),
        ("s/9", document("\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{941}", "\u{1e7e0}\u{1e7e1}", 9)),
        // "Greetings, all of you", without a blank, and two emoji, of which one has a colour of skin.
        ("t/1", document("สวัสดีทุกคน", "so\u{1f602}\u{2764}\u{fe0f}", 10)),
        ("t/2", document("คน", "\u{1f44d}\u{1f3fd}", 11)),
        // Arabic and Hebrew with their points, a digit in a box, marks that nobody sees.
        (
            "u/1",
            document(
                "\u{645}\u{64f}\u{62d}\u{64e}\u{645}\u{64e}\u{651}\u{62f}",
                "\u{5e9}\u{5c1}\u{5b8}\u{5dc}\u{5d5}\u{5b9}\u{5dd}",
                12,
            ),
        ),
        ("u/2", document("1\u{fe0f}\u{20e3}", "over\u{200d}lap shy\u{ad}ly left\u{200e} plain\u{fe0e}", 13)),
        (
            "u/3",
            document(
                "\u{645}\u{62d}\u{645}\u{640}\u{640}\u{62f} \u{6a9}\u{62a}\u{627}\u{628}\u{200c}\u{647}\u{627}",
                "",
                14,
            ),
        ),
        // Apart by a sign of Devanagari that Unicode calls a diacritic.
        ("u/4", document("\u{915}\u{94d}\u{915}", "", 15)),
        // A word that ends with another sign for the same letter where it is written small.
        ("u/5", document("ΔΡΟΜΟΣ", "δρόμος", 16)),
    ];
    let writes: Vec<_> =
        (1..).zip(&documents).map(|(at, (key, body))| (*key, at, Some(body.as_str()))).collect();
    store.write("texts@1", batch(&writes, 9).into()).await.unwrap();

    finds(store).await;
    long_phrases(store).await;
    orders(store).await;
    ranks_a_part_by_itself(store).await;
    follows_changes(store).await;
}

async fn finds(store: &dyn ReadModels) {
    let cases: [(&str, &[&str]); 45] = [
        ("cat", &["r/1", "s/6"]),
        ("CATS", &["r/1", "r/2"]),
        ("cats dog", &["r/2"]),
        ("cat nothing", &["s/6"]),
        ("evening", &["r/2", "r/3"]),
        ("good evening", &["r/2", "r/3"]),
        ("\"good evening\"", &["r/2"]),
        ("\"evening good\"", &["r/3"]),
        ("\"cats cat\"", &[]),
        ("\"run dogs\"", &["r/4"]),
        ("the", &["r/1", "r/2"]),
        ("don't", &["r/4"]),
        ("t", &["r/4"]),
        ("creme BRULEE", &["r/2"]),
        ("\u{672c}", &["r/5"]),
        ("\u{672c}\u{65e5}", &[]),
        ("\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}", &["s/8"]),
        ("\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{941}", &["s/9"]),
        ("\u{1e7e0}\u{1e7e1}", &["s/9"]),
        ("\u{1e7e1}", &[]),
        ("สวัสดี", &["t/1"]),
        ("ทุกคน", &["t/1"]),
        ("คน", &["t/1", "t/2"]),
        ("นค", &[]),
        ("\u{1f602}", &["t/1"]),
        ("\u{2764} so", &["t/1"]),
        ("\u{1f44d}", &["t/2"]),
        ("\u{645}\u{62d}\u{645}\u{62f}", &["u/1", "u/3"]),
        ("\u{645}\u{64f}\u{62d}\u{645}\u{62f}", &["u/1", "u/3"]),
        ("\u{5e9}\u{5dc}\u{5d5}\u{5dd}", &["u/1"]),
        ("\u{5e9}\u{5dc}\u{5d5}\u{5b9}\u{5dd}", &["u/1"]),
        ("1", &["u/2"]),
        ("1\u{fe0f}\u{20e3}", &["u/2"]),
        ("overlap", &["u/2"]),
        ("shyly", &["u/2"]),
        ("left", &["u/2"]),
        ("plain", &["u/2"]),
        ("plain\u{fe0f}", &["u/2"]),
        ("\u{6a9}\u{62a}\u{627}\u{628}", &["u/3"]),
        ("\u{915}\u{915}", &[]),
        ("\u{915}\u{94d}\u{915}", &["u/4"]),
        ("δρόμος", &["u/5"]),
        ("\"ΔΡΌΜΟΣ δρομοσ\"", &[]),
        ("-cat", &["r/1", "s/6"]),
        ("?! \"\"", &[]),
    ];
    for (text, expected) in cases {
        let found = store.search("texts@1", words(text)).await.unwrap();
        let mut keys = keys_of(&found);
        keys.sort_unstable();
        assert_eq!(keys, expected, "{text:?}");
    }
    for (key_prefix, equal, expected) in [
        (Some("s/"), vec![], vec!["s/6"]),
        (None, vec![(KIND, Value::Text("small".into()))], vec!["r/1"]),
        (Some("r/"), vec![(SIZE, Value::Integer(6))], vec![]),
    ] {
        let key_prefix = key_prefix.map(str::to_owned);
        let search = Search { key_prefix, equal, ..words("cat") };
        assert_eq!(keys_of(&store.search("texts@1", search.clone()).await.unwrap()), expected, "{search:?}");
    }
    let none = store.search("nothing@1", words("cat")).await.unwrap_err();
    assert!(matches!(none, ReadModelError::NoBuild { .. }), "{none}");
}

async fn orders(store: &dyn ReadModels) {
    let best = store.search("texts@1", words("mat")).await.unwrap();
    assert_eq!(keys_of(&best)[0], "r/4", "a match in the title counts more than three in the body");
    assert_eq!(best.len(), 3);
    for (direction, expected) in
        [(Direction::Ascending, ["r/1", "r/4", "r/5"]), (Direction::Descending, ["r/5", "r/4", "r/1"])]
    {
        let sorted = Search { sort: Some((SIZE, direction)), ..words("mat") };
        assert_eq!(keys_of(&store.search("texts@1", sorted.clone()).await.unwrap()), expected);
        let page = Search { skip: 1, limit: 1, ..sorted };
        assert_eq!(keys_of(&store.search("texts@1", page).await.unwrap()), expected[1..2]);
    }
    let mut paged = Vec::new();
    for skip in 0..4 {
        let page = Search { skip, limit: 1, ..words("mat") };
        paged.extend(store.search("texts@1", page).await.unwrap());
    }
    assert_eq!(paged, best, "page by page");
    let within = |skip, limit| Search { key_prefix: Some("r/".into()), skip, limit, ..words("mat") };
    let best = store.search("texts@1", within(0, 9)).await.unwrap();
    assert_eq!((keys_of(&best)[0], best.len()), ("r/4", 3), "the same in a part");
    let mut paged = Vec::new();
    for skip in 0..4 {
        paged.extend(store.search("texts@1", within(skip, 1)).await.unwrap());
    }
    assert_eq!(paged, best, "page by page");
}

/// Whatever else there is: how rare a word is elsewhere would tell of what is said there.
async fn ranks_a_part_by_itself(store: &dyn ReadModels) {
    store.create(NewBuild { text: TEXT, ..new_build("ranks@1") }).await.unwrap();
    let said = |body: &str| serde_json::json!({"title": "", "body": body}).to_string();
    let (one, other, cat, dog) = (said("cat cat dog"), said("cat dog dog"), said("cat"), said("dog"));
    let writes = [("r/1", 1, Some(one.as_str())), ("r/2", 2, Some(other.as_str()))];
    store.write("ranks@1", batch(&writes, 2).into()).await.unwrap();
    let asked = || Search { key_prefix: Some("r/".into()), ..words("cat dog") };
    let alone = store.search("ranks@1", asked()).await.unwrap();
    assert_eq!(alone.len(), 2);
    for (from, count, body) in [(100, 50, &cat), (200, 200, &dog)] {
        let keys: Vec<_> = (from..from + count).map(|at| (format!("s/{at}"), at)).collect();
        let writes: Vec<_> = keys.iter().map(|(key, at)| (key.as_str(), *at, Some(body.as_str()))).collect();
        store.write("ranks@1", batch(&writes, from + count).into()).await.unwrap();
        let found = store.search("ranks@1", asked()).await.unwrap();
        assert_eq!(keys_of(&found), keys_of(&alone), "{count} times {body} elsewhere");
    }
    store.drop_build("ranks@1").await.unwrap();
}

/// As many letters as may be asked for, in a row where each is a word by itself.
async fn long_phrases(store: &dyn ReadModels) {
    let said: String = ('\u{4e00}'..).take(SEARCH_WORDS_MAX + 1).collect();
    let body = serde_json::json!({"title": said, "body": ""}).to_string();
    store.write("texts@1", batch(&[("v/1", 1, Some(&body))], 9).into()).await.unwrap();
    let asked: String = said.chars().skip(1).collect();
    for key_prefix in [None, Some("v/".to_owned())] {
        let search = |text: &str| Search { key_prefix: key_prefix.clone(), ..words(text) };
        assert_eq!(keys_of(&store.search("texts@1", search(&asked)).await.unwrap()), ["v/1"]);
        let apart = asked.replacen('\u{4e02}', "", 1);
        assert_eq!(keys_of(&store.search("texts@1", search(&apart)).await.unwrap()), [] as [&str; 0]);
    }
    let too_long = store.search("texts@1", words(&said)).await.unwrap_err();
    assert!(matches!(too_long, ReadModelError::Unfit { .. }), "{too_long}");
    store.write("texts@1", batch(&[("v/1", 2, None)], 9).into()).await.unwrap();
}

async fn follows_changes(store: &dyn ReadModels) {
    let changed = r#"{"title":"birds","body":"of all feathers"}"#;
    let writes = [("r/1", 8, Some(changed)), ("s/6", 9, None), ("r/2", 1, Some(changed))];
    store.write("texts@1", batch(&writes, 9).into()).await.unwrap();
    assert_eq!(keys_of(&store.search("texts@1", words("cat")).await.unwrap()), [] as [&str; 0]);
    assert_eq!(keys_of(&store.search("texts@1", words("birds")).await.unwrap()), ["r/1"]);
    assert_eq!(keys_of(&store.search("texts@1", words("dog")).await.unwrap()), ["r/2"], "a late write");
    store.write("texts@1", batch(&[("s/6", 10, Some(changed))], 10).into()).await.unwrap();
    assert_eq!(store.search("texts@1", words("birds")).await.unwrap().len(), 2);
    store.drop_build("texts@1").await.unwrap();
    store.create(NewBuild { text: TEXT, ..new_build("texts@1") }).await.unwrap();
    assert_eq!(keys_of(&store.search("texts@1", words("birds")).await.unwrap()), [] as [&str; 0]);
}

fn words(text: &str) -> Search {
    Search { text: text.to_owned(), key_prefix: None, equal: Vec::new(), sort: None, skip: 0, limit: 100 }
}
