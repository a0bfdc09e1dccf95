//! Detection by names, by contents, and of nothing at all.

use std::time::Instant;

use super::{HEAD_BYTES, Language, detect, head, is_by_path};

fn name(path: &str, content: &[u8]) -> &'static str {
    detect(path.as_bytes(), content).map_or("", Language::name)
}

/// Names that decide alone, or have a usual language when there is no content.
#[rustfmt::skip]
const PATHS: &[(&str, &str)] = &[
    ("src/main.rs", "Rust"), ("a/b/c.c", "C"), ("x.cc", "C++"), ("x.cpp", "C++"), ("x.cxx", "C++"), ("x.hpp", "C++"),
    ("x.h", "C"), ("main.go", "Go"), ("go.mod", "Go Module"), ("go.sum", "Go Checksums"), ("a.py", "Python"),
    ("a.pyi", "Python"), ("BUILD.bazel", "Starlark"), ("a.js", "JavaScript"), ("a.mjs", "JavaScript"),
    ("a.cjs", "JavaScript"), ("a.jsx", "JavaScript"), ("a.ts", "TypeScript"), ("a.d.ts", "TypeScript"),
    ("a.tsx", "TSX"), ("A.java", "Java"), ("a.kt", "Kotlin"), ("a.scala", "Scala"), ("a.rb", "Ruby"),
    ("Rakefile", "Ruby"), ("Gemfile", "Ruby"), ("a.gemspec", "Ruby"), ("a.php", "PHP"), ("a.cs", "C#"),
    ("a.fs", "F#"), ("a.swift", "Swift"), ("a.m", "Objective-C"), ("a.mm", "Objective-C++"), ("a.pl", "Perl"),
    ("a.pm", "Perl"), ("a.sh", "Shell"), (".bashrc", "Shell"), ("a.ps1", "PowerShell"), ("a.bat", "Batchfile"),
    ("Makefile", "Makefile"), ("sub/GNUmakefile", "Makefile"), ("a.mk", "Makefile"), ("Dockerfile", "Dockerfile"),
    ("CMakeLists.txt", "CMake"), ("a.cmake", "CMake"), ("notes.txt", "Text"), ("README.md", "Markdown"),
    ("a.html", "HTML"), ("a.css", "CSS"), ("a.scss", "SCSS"), ("a.json", "JSON"), ("package.json", "JSON"),
    ("Cargo.lock", "TOML"), ("Cargo.toml", "TOML"), ("a.yml", "YAML"), ("a.yaml", "YAML"), ("a.xml", "XML"),
    ("a.svg", "SVG"), ("a.sql", "SQL"), ("a.proto", "Protocol Buffer"), ("a.lua", "Lua"), ("a.hs", "Haskell"),
    ("a.ml", "OCaml"), ("a.ex", "Elixir"), ("a.erl", "Erlang"), ("a.clj", "Clojure"), ("a.dart", "Dart"),
    ("a.zig", "Zig"), ("a.r", "R"), ("a.R", "R"), ("A.JAVA", "Java"), ("a.jl", "Julia"), ("a.tf", "HCL"),
    ("a.tex", "TeX"), ("a.s", "Unix Assembly"), ("a.asm", "Assembly"), ("a.v", "Verilog"), ("a.vue", "Vue"),
    (".gitignore", "Ignore List"), (".gitattributes", "Git Attributes"), ("a.html.erb", "HTML+ERB"), ("a.d", "D"),
    ("", ""), ("noextension", ""), ("a.unknown-thing", ""), ("dir.rs/file", ""), (".", ""), ("..", ""), ("a.", ""),
];

/// Names that mean several things, and what their contents make of them.
#[rustfmt::skip]
const CONTENTS: &[(&str, &[u8], &str)] = &[
    ("a.h", b"#include <stdio.h>\nint f(void);\n", "C"),
    ("a.h", b"#pragma once\nnamespace a {\nclass B {\npublic:\n};\n}\n", "C++"),
    ("a.h", b"#include <vector>\nstd::vector<int> f();\n", "C++"),
    ("a.h", b"#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", "Objective-C"),
    ("A.H", b"#include <string>\n", "C++"),
    ("a.h", b"/* -*- mode: c++ -*- */\nint x;\n", "C++"),
    ("a.m", b"#import \"A.h\"\n@implementation A\n@end\n", "Objective-C"),
    ("a.m", b"% plot it\nfunction y = f(x)\n", "MATLAB"),
    ("a.m", b":- module foo.\n:- interface.\n", "Mercury"),
    ("a.ts", b"<?xml version=\"1.0\"?>\n<!DOCTYPE TS>\n<TS version=\"2.0\">\n", "XML"),
    ("a.ts", b"export const a: number = 1;\n", "TypeScript"),
    ("a.tsx", b"<?xml version=\"1.0\"?>\n<tileset/>\n", "XML"),
    ("a.pl", b"use strict;\nmy $x = 1;\n", "Perl"),
    ("a.pl", b"parent(a, b).\nold(X) :- parent(X, _).\n", "Prolog"),
    ("a.pl", b"use v6;\nsay 1;\n", "Raku"),
    ("a.pl", b"#!/usr/bin/perl\nprint 1;\n", "Perl"),
    ("a.rs", b"use std::fmt;\nfn main() {}\n", "Rust"),
    ("a.rs", b"#pragma version(1)\n#pragma rs java_package_name(x)\n", "RenderScript"),
    ("a.md", b"# Title\n", "Markdown"),
    ("a.md", b"(define_insn \"addsi3\"\n", "GCC Machine Description"),
    ("a.v", b"Theorem a : True.\nProof. exact I. Qed.\n", "Rocq Prover"),
    ("a.sql", b"SELECT 1;\n", "SQL"),
    ("a.php", b"<?php echo 1;\n", "PHP"),
    ("a.php", b"<?hh // strict\n", "Hack"),
    ("a.cs", b"using System;\nnamespace A { }\n", "C#"),
    ("tool", b"#!/bin/sh\necho\n", "Shell"),
    ("tool", b"#!/usr/bin/env python3\nprint()\n", "Python"),
    ("tool", b"#! /usr/local/bin/python3.11 -u\r\nprint()\n", "Python"),
    ("tool", b"#!/usr/bin/env -S node --harmony\n", "JavaScript"),
    ("tool", b"#!/usr/bin/env A=1 ruby\n", "Ruby"),
    ("tool", b"#!/bin/bash", "Shell"),
    ("tool", b"#!/opt/unheard-of\n", ""),
    ("tool", b"#!\n", ""),
    ("conf", b"# vim: set ft=ruby :\n", "Ruby"),
    ("conf", b"x\n", ""),
    ("data", b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<a/>", "XML"),
    ("bin", b"\x7fELF\x00\x01\xff", ""),
    // A name that is clear is believed, whatever the content.
    ("a.py", b"#!/bin/sh\n", "Python"),
    ("Makefile", b"#!/usr/bin/env ruby\n", "Makefile"),
];

#[test]
fn names_decide() {
    for (path, expected) in PATHS {
        assert_eq!(name(path, b""), *expected, "{path}");
    }
}

#[test]
fn contents_decide_where_names_do_not() {
    for (path, content, expected) in CONTENTS {
        assert_eq!(name(path, content), *expected, "{path}: {}", String::from_utf8_lossy(content));
    }
}

#[test]
#[rustfmt::skip]
fn names_and_aliases_find_languages() {
    let aliases = [
        ("rust", "Rust"), ("RS", "Rust"), ("cpp", "C++"), ("C++", "C++"), ("js", "JavaScript"), ("golang", "Go"),
        ("c#", "C#"), ("csharp", "C#"), ("ts", "TypeScript"), ("py", "Python"), (".kt", "Kotlin"), ("bash", "Shell"),
        ("objective c", "Objective-C"), ("objc", "Objective-C"), ("c", "C"), ("h", "C"), ("yml", "YAML"),
        (" go ", "Go"), ("vim script", "Vim script"),
    ];
    for (alias, expected) in aliases {
        assert_eq!(Language::from_name(alias).map(Language::name), Some(expected), "{alias}");
    }
    for nothing in ["", ".", "no such", "\u{130}", "x".repeat(10_000).as_str()] {
        assert_eq!(Language::from_name(nothing), None, "{nothing}");
    }
}

#[test]
fn every_language_is_found_by_its_names() {
    assert!(Language::all().len() > 600);
    for language in Language::all() {
        assert_eq!(Language::from_name(language.name()), Some(language), "{language}");
        assert_eq!(Language::from_stable_id(language.stable_id()), Some(language), "{language}");
    }
    assert!(Language::all().map(Language::name).is_sorted());
}

#[test]
fn the_usual_languages_exist() {
    for (extension, language) in super::usual::USUAL {
        assert_eq!(name(&format!("a{extension}"), b""), *language, "{extension}");
    }
}

/// Every extension with every bad content: no panic, and no pattern that takes for ever.
#[test]
#[rustfmt::skip]
fn hostile_contents_end_soon() {
    let contents: Vec<Vec<u8>> = vec![
        b"a".repeat(1 << 20), b" ".repeat(1 << 16), b"\n".repeat(1 << 16), vec![0xff; 1 << 14], vec![0; 1 << 14],
        b"-*- mode: ".repeat(4_000), b"vim: set a=b:".repeat(4_000), b"#!".repeat(9_000), b"((((<<<<[[[[{{{{".repeat(999),
        b"a b(c) d.e = f;\n".repeat(2_000), b"/*".repeat(9_000), b"\"'`".repeat(9_000), b"\t. \t. ".repeat(3_000),
        "é\u{2028}\u{fffd}".repeat(3_000).into_bytes(),
    ];
    let more = [("a.bas", ""), ("a.pkl", ""), ("a.1", ""), ("a.st", ""), ("a.inc", ""), ("a.sol", ""), ("a.toc", "")];
    for (path, _) in PATHS.iter().chain(&more) {
        for content in &contents {
            let start = Instant::now();
            detect(path.as_bytes(), content);
            assert!(start.elapsed().as_secs() < 5, "{path}: {:?}", start.elapsed());
        }
    }
    for path in [&b"\xff\xfe.rs"[..], b"a.\xff", b"\0", &b"a.".repeat(9_000), &b"/".repeat(9_000)] {
        detect(path, b"\xff");
    }
    assert_eq!(name("\u{e9}.rs", b""), "Rust");
}

#[test]
fn what_a_name_speaks_for_is_among_what_the_content_may_say() {
    let python = b"let text = \"# -*- mode: python -*-\";\n";
    assert_eq!(detect(b"lib.rs", python), Language::from_name("rust"));
    assert_eq!(detect(b"script", python), Language::from_name("python"));
    for language in ["rust", "python", "c++"] {
        let language = Language::from_name(language).expect("a language");
        for (path, content) in
            [(&b"lib.rs"[..], &python[..]), (b"a.h", b"class A;\n"), (b"a.py", b""), (b"script", python)]
        {
            let told = detect(path, content) == Some(language);
            assert!(is_by_path(path, language).is_none_or(|known| known == told), "{path:?} {language}");
        }
    }
}

#[test]
fn the_end_of_a_head_is_not_the_end_of_a_file() {
    let mut content = b"text\n".repeat(2 * HEAD_BYTES / 5);
    let middle = HEAD_BYTES - b"# vim: ft=ruby\n".len();
    content.splice(middle..middle, *b"# vim: ft=ruby\n");
    assert_eq!(detect(b"notes", head(&content)), None);
    let short = [&b"text\n".repeat(200)[..], b"# vim: ft=ruby\n"].concat();
    assert_eq!(detect(b"notes", head(&short)), Language::from_name("ruby"));
}
