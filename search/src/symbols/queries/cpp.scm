; What a C++ file defines: what c.scm has, and classes, namespaces and their members.

(function_definition declarator: (_) @function.declarator) @scope
(struct_specifier name: (type_identifier) @struct body: (_)) @scope
(union_specifier name: (type_identifier) @struct body: (_)) @scope
(enum_specifier name: (type_identifier) @enum body: (_)) @scope
(enumerator name: (identifier) @constant)
(field_declaration declarator: (_) @field.declarator)

(type_definition
  type: (struct_specifier !name body: (_)) declarator: (type_identifier) @struct) @scope
(type_definition
  type: (union_specifier !name body: (_)) declarator: (type_identifier) @struct) @scope
(type_definition type: (enum_specifier !name body: (_)) declarator: (type_identifier) @enum) @scope
(type_definition declarator: (_) @type.declarator)

(preproc_def name: (identifier) @macro)
(preproc_function_def name: (identifier) @macro)

(translation_unit
  (declaration declarator: (_) @variable.declarator) @_declaration
  (#not-match? @_declaration "^extern"))
(preproc_ifdef
  (declaration declarator: (_) @variable.declarator) @_declaration
  (#not-match? @_declaration "^extern"))
(preproc_if
  (declaration declarator: (_) @variable.declarator) @_declaration
  (#not-match? @_declaration "^extern"))
(preproc_else
  (declaration declarator: (_) @variable.declarator) @_declaration
  (#not-match? @_declaration "^extern"))
(declaration_list
  (declaration declarator: (_) @variable.declarator) @_declaration
  (#not-match? @_declaration "^extern"))

(class_specifier name: (type_identifier) @class body: (_)) @scope
(class_specifier name: (template_type name: (type_identifier) @class) body: (_)) @scope
(struct_specifier name: (template_type name: (type_identifier) @struct) body: (_)) @scope
(namespace_definition name: (namespace_identifier) @module) @scope
(namespace_definition name: (nested_namespace_specifier) @module) @scope
(alias_declaration name: (type_identifier) @type)
(concept_definition name: (identifier) @interface)

; Constructors and destructors declared in a class.
(field_declaration_list (declaration declarator: (_) @method.declarator))
