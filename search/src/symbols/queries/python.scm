; What a Python file defines. Functions in a class become methods by nesting.

(class_definition name: (identifier) @class) @scope
(function_definition name: (identifier) @function) @scope
(type_alias_statement left: (type (identifier) @type))
(type_alias_statement left: (type (generic_type (identifier) @type)))

(module
  (expression_statement (assignment left: (identifier) @constant))
  (#match? @constant "^_*[A-Z][A-Z0-9_]+$"))
(module (expression_statement (assignment left: (identifier) @variable)))
(class_definition
  body: (block (expression_statement (assignment left: (identifier) @field))))
