//! Finding the name inside of a C or C++ declarator, where pointers, arrays and parameters wrap it: `*(*name)[3]`.

use tree_sitter::Node;

/// More wrappers around a name than any compiler accepts from a person.
const WRAPPERS_MAX: usize = 32;

/// The name that a declarator declares.
pub(super) struct Declared<'tree> {
    pub(super) name: Node<'tree>,
    /// The last qualifier: `B` of `A::B::name`.
    pub(super) qualifier: Option<Node<'tree>>,
    /// Whether the declarator declares a function (`f(int)`), and not, say, a pointer to one.
    pub(super) is_function: bool,
}

/// Descends from `declarator` to the name that it declares.
pub(super) fn declared(declarator: Node<'_>) -> Option<Declared<'_>> {
    let mut node = declarator;
    let mut qualifier = None;
    // What is wrapped nearest around the name tells what the name is.
    let mut is_function = false;
    for _ in 0..WRAPPERS_MAX {
        let next = match node.kind() {
            "identifier" | "field_identifier" | "type_identifier" | "destructor_name" | "operator_name" => {
                return Some(Declared { name: node, qualifier, is_function });
            }
            "qualified_identifier" => {
                qualifier = node.child_by_field_name("scope").map(without_arguments);
                node.child_by_field_name("name")
            }
            "template_function" | "template_method" | "template_type" => node.child_by_field_name("name"),
            "parenthesized_declarator" | "reference_declarator" | "attributed_declarator" => node.named_child(0),
            kind => {
                is_function = match kind {
                    "function_declarator" => true,
                    "pointer_declarator" | "array_declarator" => false,
                    _ => is_function,
                };
                node.child_by_field_name("declarator")
            }
        };
        node = next?;
    }
    None
}

/// `Box` of `Box<int>`.
fn without_arguments(qualifier: Node<'_>) -> Node<'_> {
    let template = if qualifier.kind() == "template_type" { qualifier.child_by_field_name("name") } else { None };
    template.unwrap_or(qualifier)
}
