//! What patterns demand, and that whatever matches has it.

use proptest::prelude::*;
use regex_syntax::ParserBuilder;

use super::{Gram, GramQuery};

fn query(pattern: &str, case_insensitive: bool) -> GramQuery {
    let mut parser = ParserBuilder::new().utf8(false).multi_line(true).case_insensitive(case_insensitive).build();
    GramQuery::of(&parser.parse(pattern).expect("a valid pattern"))
}

fn text(query: &GramQuery) -> String {
    query.to_string()
}

#[test]
fn patterns_become_conditions() {
    for (pattern, wanted) in [
        ("abcd", "abc&bcd"),
        ("ABC", "abc"),
        ("ab", "all"),
        (".*", "all"),
        ("abc.*def", "abc&def"),
        ("abc|def", "(abc or def)"),
        ("a[bc]d", "(abd or acd)"),
        ("(abc)+d", "abc"),
        ("ab(cd|ef)gh", "(abc&bcd&cdg&dgh or abe&bef&efg&fgh)"),
        ("abcx?def", "(abc&bcd&cde&def or abc&bcx&cxd&def&xde)"),
        ("abc[a-z]def", "abc&def"),
        ("foo|.*", "all"),
        ("^abc$", "abc"),
        ("a{4}", "aaa"),
        ("[0-9]{3}abc", "abc"),
        (r"[^\x00-\x{10FFFF}]abc", "none"),
        (r"(abc|def).*(ghi|jkl)", "((abc or def) and (ghi or jkl))"),
    ] {
        assert_eq!(text(&query(pattern, false)), wanted, "{pattern}");
    }
    // The Kelvin sign is a k in either case.
    let mut kelvin: Vec<Gram> = Gram::of("ab\u{212a}".as_bytes()).collect();
    kelvin.sort();
    let kelvin = GramQuery::Grams(kelvin);
    assert_eq!(text(&query("abk", true)), format!("({} or abk)", text(&kelvin)));
}

#[test]
fn what_grows_is_cut_but_stays_a_condition() {
    let many = query("[abcd][abcd][abcd][abcd]wxyz", false);
    assert_ne!(many, GramQuery::All);
    assert!(text(&many).contains("wxy&xyz"), "{}", text(&many));
    let long = query(&"abcdefgh".repeat(100), false);
    assert!(matches!(long, GramQuery::Grams(_)), "{}", text(&long));
}

fn holds(query: &GramQuery, grams: &[Gram]) -> bool {
    match query {
        GramQuery::All => true,
        GramQuery::None => false,
        GramQuery::Grams(wanted) => wanted.iter().all(|gram| grams.contains(gram)),
        GramQuery::And(parts) => parts.iter().all(|part| holds(part, grams)),
        GramQuery::Or(parts) => parts.iter().any(|part| holds(part, grams)),
    }
}

fn patterns() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-dA-Dks\u{212a}é]{1,6}",
        Just(".".to_owned()),
        Just("[abc]".to_owned()),
        Just("[^a]".to_owned()),
        Just(r"\w".to_owned()),
        Just("^".to_owned()),
        Just(r"\b".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..5).prop_map(|parts| parts.concat()),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            (inner.clone(), prop_oneof!["[?*+]", Just("{2}".to_owned()), Just("{1,3}".to_owned())])
                .prop_map(|(inner, sign)| format!("(?:{inner}){sign}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_matches_has_the_grams(
        pattern in patterns(),
        case_insensitive: bool,
        text in "[a-dA-DkKsS\u{212a}éÉ]{0,40}",
    ) {
        let regex = regex::bytes::RegexBuilder::new(&pattern)
            .multi_line(true)
            .case_insensitive(case_insensitive)
            .build()
            .expect("a valid pattern");
        let grams: Vec<Gram> = Gram::of(text.as_bytes()).collect();
        if regex.is_match(text.as_bytes()) {
            prop_assert!(holds(&query(&pattern, case_insensitive), &grams), "{}", pattern);
        }
    }
}
