; What a C file defines. cpp.scm repeats all of this; change both.

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
