; What a Java file defines.

(package_declaration [(identifier) (scoped_identifier)] @module)
(class_declaration name: (identifier) @class) @scope
(record_declaration name: (identifier) @class) @scope
(interface_declaration name: (identifier) @interface) @scope
(annotation_type_declaration name: (identifier) @interface) @scope
(enum_declaration name: (identifier) @enum) @scope
(enum_constant name: (identifier) @constant)

(method_declaration name: (identifier) @method) @scope
(constructor_declaration name: (identifier) @method) @scope
(compact_constructor_declaration name: (identifier) @method) @scope
(annotation_type_element_declaration name: (identifier) @method)

(constant_declaration declarator: (variable_declarator name: (identifier) @constant))
(field_declaration
  declarator: (variable_declarator name: (identifier) @constant)
  (#match? @constant "^[A-Z][A-Z0-9_]*$"))
(field_declaration declarator: (variable_declarator name: (identifier) @field))
