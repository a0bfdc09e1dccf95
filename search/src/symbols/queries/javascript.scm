; What a JavaScript file defines. typescript.scm has the same with TypeScript's node names; change both.

(class_declaration name: (identifier) @class) @scope
(class name: (identifier) @class) @scope
(variable_declarator name: (identifier) @class value: (class)) @scope
(method_definition name: [(property_identifier) (private_property_identifier)] @method) @scope
(field_definition property: [(property_identifier) (private_property_identifier)] @field)

(function_declaration name: (identifier) @function) @scope
(generator_function_declaration name: (identifier) @function) @scope
(function_expression name: (identifier) @function) @scope
(generator_function name: (identifier) @function) @scope
(variable_declarator
  name: (identifier) @function
  value: [(arrow_function) (function_expression) (generator_function)]) @scope
(assignment_expression
  left: [(identifier) @function (member_expression property: (property_identifier) @function)]
  right: [(arrow_function) (function_expression) (generator_function)]) @scope
(pair
  key: (property_identifier) @method
  value: [(arrow_function) (function_expression) (generator_function)]) @scope

(program (lexical_declaration kind: "const" (variable_declarator name: (identifier) @constant)))
(program (lexical_declaration kind: "let" (variable_declarator name: (identifier) @variable)))
(program (variable_declaration (variable_declarator name: (identifier) @variable)))
(export_statement
  (lexical_declaration kind: "const" (variable_declarator name: (identifier) @constant)))
(export_statement
  (lexical_declaration kind: "let" (variable_declarator name: (identifier) @variable)))
(export_statement (variable_declaration (variable_declarator name: (identifier) @variable)))
