//! What is found in one sample of each language; `fixtures/sample.EXT.symbols` lists it.

use super::{find, shown};
use crate::language::Language;
use crate::symbols::{SymbolKind, is_supported};

fn check(language: &str, content: &[u8], expected: &str) {
    let found = find(language, content).expect("symbols");
    let shown = shown(content, &found);
    for (at, (found, expected)) in shown.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{language}, symbol {at}");
    }
    assert_eq!(shown.lines().count(), expected.lines().count(), "{language}: {shown}");
    assert!(found.is_sorted_by_key(|symbol| symbol.name.start), "{language}: out of order");
    assert!(found.windows(2).all(|pair| pair[0].name != pair[1].name), "{language}: duplicates");
}

#[test]
fn samples_give_their_symbols() {
    check("Rust", include_bytes!("fixtures/sample.rs"), include_str!("fixtures/sample.rs.symbols"));
    check("C", include_bytes!("fixtures/sample.c"), include_str!("fixtures/sample.c.symbols"));
    check("C++", include_bytes!("fixtures/sample.cpp"), include_str!("fixtures/sample.cpp.symbols"));
    check("Go", include_bytes!("fixtures/sample.go"), include_str!("fixtures/sample.go.symbols"));
    check("Python", include_bytes!("fixtures/sample.py"), include_str!("fixtures/sample.py.symbols"));
    check("JavaScript", include_bytes!("fixtures/sample.js"), include_str!("fixtures/sample.js.symbols"));
    check("TypeScript", include_bytes!("fixtures/sample.ts"), include_str!("fixtures/sample.ts.symbols"));
    check("TSX", include_bytes!("fixtures/sample.tsx"), include_str!("fixtures/sample.tsx.symbols"));
    check("Java", include_bytes!("fixtures/sample.java"), include_str!("fixtures/sample.java.symbols"));
    check("Ruby", include_bytes!("fixtures/sample.rb"), include_str!("fixtures/sample.rb.symbols"));
    check("PHP", include_bytes!("fixtures/sample.php"), include_str!("fixtures/sample.php.symbols"));
    check("C#", include_bytes!("fixtures/sample.cs"), include_str!("fixtures/sample.cs.symbols"));
}

#[test]
fn broken_programs_give_what_is_whole() {
    let rust = b"fn whole() {}\nstruct S { a: u8 }\nfn broken( {{{ \"";
    check("Rust", rust, "1 function whole\n2 struct S\n2 field a < S\n");
    check("Python", b"class A:\n    def b(self): pass\n  def (:\n", "1 class A\n2 method b < A\n");
    check("C", b"int f(void) { return 1; }\r\nint g(\xff\xfe", "1 function f\n");
}

#[test]
fn neighbours_are_no_parents() {
    check("Rust", b"mod a{}mod b{}fn c(){}struct D{}", "1 module a\n1 module b\n1 function c\n1 struct D\n");
}

#[test]
fn specializations_have_names() {
    check("C++", b"template<> int f<int>(int a) { return a; }", "1 function f\n");
}

#[test]
fn local_names_are_no_symbols() {
    check("C", b"int f(int a) {\n#ifdef X\n  int local;\n#endif\n  extern int far; return a; }", "1 function f\n");
    check("JavaScript", b"(() => { const a = 1; let b; })();", "");
    check("Go", b"package p\nfunc f() { const a = 1; var b int }", "1 module p\n2 function f\n");
}

#[test]
fn kinds_have_names_of_their_own() {
    for kind in SymbolKind::ALL {
        assert_eq!(SymbolKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(SymbolKind::from_name("scope"), None);
}

#[test]
fn support_is_told() {
    let supported: Vec<_> = Language::all().filter(|language| is_supported(*language)).map(Language::name).collect();
    assert_eq!(supported, super::LANGUAGES);
}
