; What a Rust file defines. Functions in an impl or trait become methods by nesting.

(struct_item name: (type_identifier) @struct) @scope
(union_item name: (type_identifier) @struct) @scope
(enum_item name: (type_identifier) @enum) @scope
(enum_variant name: (identifier) @constant)
(trait_item name: (type_identifier) @interface) @scope
(mod_item name: (identifier) @module) @scope
(type_item name: (type_identifier) @type)
(associated_type name: (type_identifier) @type)
(function_item name: (identifier) @function) @scope
(function_signature_item name: (identifier) @function)
(macro_definition name: (identifier) @macro)
(const_item name: (identifier) @constant)
(static_item name: (identifier) @variable)
(field_declaration name: (field_identifier) @field)

(impl_item type: (type_identifier) @container) @scope
(impl_item type: (generic_type type: (type_identifier) @container)) @scope
(impl_item type: (scoped_type_identifier name: (type_identifier) @container)) @scope
(impl_item type: (reference_type type: (_) @container)) @scope
(impl_item type: (_) @container) @scope
