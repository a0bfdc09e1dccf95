//! What is a token, by example and against what must hold for any bytes.

use proptest::prelude::*;

use super::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, Words};

fn tokens(text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    Words::default().tokens(text, |token, _| found.push(token.to_owned()));
    found
}

#[test]
fn words_are_split_where_people_would() {
    for (text, expected) in [
        ("let x = foo(bar);", &["let", "foo", "bar"][..]),
        ("parse_http_request", &["parse", "http", "request", "parse_http_request"]),
        ("parseHTTPRequest2", &["parse", "http", "request2", "parsehttprequest2"]),
        ("HttpServer", &["http", "server", "httpserver"]),
        ("XMLHttpRequest", &["xml", "http", "request", "xmlhttprequest"]),
        ("MAX_VALUE", &["max", "value", "max_value"]),
        ("__init__", &["init"]),
        ("_private_field_", &["private", "field", "private_field"]),
        ("a__b", &["a__b"]),
        ("x_y z", &["x_y"]),
        ("sha256 utf8 x86_64 i32", &["sha256", "utf8", "x86", "64", "x86_64", "i32"]),
        ("base64Encode", &["base64", "encode", "base64encode"]),
        ("HTTP2Server", &["http2", "server", "http2server"]),
        ("don't e.g. C++ --no-cache", &["don", "no", "cache"]),
        ("ÜberStraße ΣΟΦΌΣ naïve", &["über", "straße", "überstraße", "σοφόσ", "naïve"]),
        ("日本語 テスト", &["日本語", "テスト"]),
        ("0x89abcdef 404 12345678901", &["0x89abcdef", "404"]),
        ("a \u{ad} \u{2014}b\u{2014}cd", &["cd"]),
        ("", &[]),
        ("_ __ - 1 a", &[]),
    ] {
        assert_eq!(tokens(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn bytes_that_are_no_text_end_words() {
    assert_eq!(tokens(b"foo\xffbar\xe2\x82baz\xc3"), ["foo", "bar", "baz"]);
    assert_eq!(tokens(b"\xe2\xc3\xa9t\xc3\xa9"), ["été"]);
    assert_eq!(tokens(b"a\0bc"), ["bc"]);
}

#[test]
fn data_is_left_out() {
    for text in [
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "0123456789ABCDEF",
        "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0",
        &"xyz".repeat(100),
        &"Ab".repeat(500_000),
    ] {
        assert!(tokens(text.as_bytes()).is_empty(), "{text:.80}");
    }
    assert_eq!(tokens(b"bff57ca deadbeefdeadbeefdead"), ["bff57ca", "deadbeefdeadbeefdead"]);
    let long = "shouldReturnAnEmptyListWhenTheUserHasNoPermissions";
    let found = tokens(long.as_bytes());
    assert!(found.contains(&"permissions".to_owned()) && !found.contains(&long.to_lowercase()), "{found:?}");
    let word = "x".repeat(TOKEN_BYTES_MAX);
    assert_eq!(tokens(format!("{word} {word}x").as_bytes()), [word]);
}

proptest! {
    #[test]
    fn tokens_are_short_and_where_they_are_said_to_be(
        text in prop_oneof![
            "[a-cA-C0-2_éÉß -]{0,60}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..200),
        ],
    ) {
        let mut found = Vec::new();
        Words::default().tokens(&text, |token, place| found.push((token.to_owned(), place)));
        let is_lower = |(written, lower): (char, char)| match written.is_ascii() {
            true => lower == written.to_ascii_lowercase(),
            false => lower == written || written.to_lowercase().eq([lower]),
        };
        for (token, place) in &found {
            let written = std::str::from_utf8(&text[place.clone()]).expect("a token is text");
            prop_assert_eq!(written.chars().count(), token.chars().count());
            prop_assert!(written.chars().zip(token.chars()).all(is_lower), "{} {}", written, token);
            prop_assert!((TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()));
            // Who asks for a token finds it.
            prop_assert!(tokens(token.as_bytes()).contains(token), "{}", token);
        }
        // Lines stand alone, so that chunks do.
        let by_line: Vec<String> = text.split(|byte| *byte == b'\n').flat_map(tokens).collect();
        prop_assert_eq!(by_line, found.into_iter().map(|(token, _)| token).collect::<Vec<_>>());
    }
}
