//! What patterns demand, and that whatever matches has it.

use proptest::prelude::*;
use regex_syntax::ParserBuilder;
use tantivy::tokenizer::{TokenStream as _, Tokenizer as _};

use super::{
    super::gram::{FOLDED_END, GramTokenizer, folded},
    Gram, GramQuery,
};

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
        ("ab", "ab"),
        ("a", "all"),
        ("ab|.*", "all"),
        (";;$", ";;"),
        ("ab|cd", "(ab or cd)"),
        ("ab|cde", "(ab or cde)"),
        ("ab.*cd", "(ab and cd)"),
        ("ab.*cde", "cde"),
        ("(ab|cd).*efg", "efg"),
        ("ab|cd|ef|gh|ij", "all"),
        ("ab.*cd.*ef.*gh.*ij", "(ab and cd and ef and gh)"),
        ("a\nb", "all"),
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

/// Whether a text of which the index has these grams may match.
fn holds(query: &GramQuery, grams: &[String]) -> bool {
    match query {
        GramQuery::All => true,
        GramQuery::None => false,
        GramQuery::Grams(wanted) => wanted.iter().all(|gram| grams.iter().any(|known| known == gram.as_str())),
        GramQuery::Pair(pair) => {
            let (from, to) = pair.beginnings();
            let begins = |gram: &String| gram.as_bytes() >= from.as_slice() && gram.as_bytes() < to.as_slice();
            grams.iter().any(|gram| begins(gram) || (0..FOLDED_END).any(|byte| pair.behind(byte).as_str() == gram))
        }
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
        lines in proptest::collection::vec("[a-dA-DkKsS\u{212a}éÉ]{0,4}|[a-dA-DkKsS\u{212a}éÉ]{0,40}", 0..4),
        ends: bool,
    ) {
        let regex = regex::bytes::RegexBuilder::new(&pattern)
            .multi_line(true)
            .case_insensitive(case_insensitive)
            .build()
            .expect("a valid pattern");
        let text = folded(format!("{}{}", lines.join("\n"), if ends { "\n" } else { "" }).as_bytes());
        let mut tokenizer = GramTokenizer::default();
        let mut stream = tokenizer.token_stream(&text);
        let mut grams = Vec::new();
        stream.process(&mut |token| grams.push(token.text.clone()));
        if lines.iter().any(|line| regex.is_match(line.as_bytes())) {
            prop_assert!(holds(&query(&pattern, case_insensitive), &grams), "{}", pattern);
        }
    }
}
