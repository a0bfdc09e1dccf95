//! Files that the grammars' native code is known not to survive, told before it sees them.
//!
//! Tree-sitter's grammars bring hand-written C scanners whose state is saved in 1024 bytes. Two of them (of the
//! versions used here) check that bound wrongly: Python's writes one byte too many for hundreds of indentations,
//! Ruby's for about a kilobyte of pending heredoc words, or loses count for one of 256 bytes; the runtime then
//! aborts the process. The checks here are coarse and err towards skipping a file; a file that a person wrote has
//! little chance to be skipped. Read the scanners' `serialize` again whenever a grammar's version changes.
//!
//! Deep nesting is no danger to the stack ([`super::extract`] sees to that), but makes parsing quadratic. What is not
//! listed here may still take any amount of memory: see the module above.

use memchr::{memchr, memchr_iter, memmem};

use super::Skipped;

/// More brackets are open at once in no program, unless one counts those in its strings and comments.
const OPEN_BRACKETS_MAX: usize = 5_000;

/// Python itself gives up at 100 levels; the scanner's 1024 bytes hold 383 levels beside all of its other state.
const PYTHON_INDENT_COLUMNS_MAX: usize = 380;

/// What a file may put into the Ruby scanner's 1024 bytes altogether.
const RUBY_STATE_BYTES_MAX: usize = 1_000;

/// Where `a<` may begin a type or a comparison, Java's and C#'s parsers keep both readings to the end and copy all
/// of them there, in one step that no deadline interrupts: 5 000 take 300 MB and a second, 50 000 take 24 GB. All of
/// a file's are counted, for comments between them would mislead any finer count.
const ANGLES_MAX: usize = 5_000;

/// Says no to contents that are dangerous to parse as the language that linguist calls `language`.
pub(super) fn check(language: &str, content: &[u8]) -> Result<(), Skipped> {
    let hazardous = match language {
        "Python" => python_indents_too_far(content),
        "Ruby" => ruby_state_overflows(content),
        "C#" | "Java" => memchr_iter(b'<', content).count() > ANGLES_MAX,
        _ => false,
    };
    if hazardous || nests_too_deeply(content) { Err(Skipped::Hazardous) } else { Ok(()) }
}

fn nests_too_deeply(content: &[u8]) -> bool {
    let mut open = 0_usize;
    content.iter().any(|byte| {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > OPEN_BRACKETS_MAX
    })
}

/// Whether a line begins with so much white space that as many levels could be open. Each level takes a column.
///
/// Counts as the scanner does: a tab is 8 columns, and a backslash at a line's end continues its indentation.
fn python_indents_too_far(content: &[u8]) -> bool {
    let mut columns = 0_usize;
    let mut in_indent = true;
    content.iter().any(|byte| {
        match byte {
            b'\n' if !in_indent => (columns, in_indent) = (0, true),
            b' ' if in_indent => columns += 1,
            b'\t' if in_indent => columns += 8,
            // Blank lines and continuations only ever make the count too high.
            b'\n' | b'\r' | b'\x0c' | b'\\' => {}
            _ => in_indent = false,
        }
        in_indent && columns > PYTHON_INDENT_COLUMNS_MAX
    })
}

/// Whether all heredoc words and nested strings of the file together could fill the scanner's state, or one word
/// is so long that its length is cut to a byte.
///
/// Counts the whole file, for only the scanner knows what is pending at one time. Without heredocs there is no
/// danger: the bound on strings is checked rightly.
fn ruby_state_overflows(content: &[u8]) -> bool {
    const LITERAL_BYTES: usize = 5;
    const HEREDOC_BYTES: usize = 4;
    const WORD_BYTES_MAX: usize = 250;
    let mut state = 0;
    for opener in heredoc_openers(content) {
        let word = heredoc_word_bytes(content.get(opener..).unwrap_or(&[]));
        if word > 0 {
            state += HEREDOC_BYTES + word;
        }
        // Stops here, so that the search for closing quotes cannot become quadratic.
        if word > WORD_BYTES_MAX || state > RUBY_STATE_BYTES_MAX {
            return true;
        }
    }
    state > 0 && state + LITERAL_BYTES * memmem::find_iter(content, b"#{").count() > RUBY_STATE_BYTES_MAX
}

/// The positions behind every `<<`, overlapping ones among them.
fn heredoc_openers(content: &[u8]) -> impl Iterator<Item = usize> {
    content.windows(2).enumerate().filter(|(_, pair)| *pair == b"<<").map(|(at, _)| at + 2)
}

/// Length of the word at the beginning of `rest`, as the scanner reads it.
fn heredoc_word_bytes(rest: &[u8]) -> usize {
    let rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"~")).unwrap_or(rest);
    match rest.split_first() {
        Some((quote @ (b'"' | b'\'' | b'`'), quoted)) => memchr(*quote, quoted).unwrap_or(quoted.len()),
        _ => rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || !byte.is_ascii()).count(),
    }
}
