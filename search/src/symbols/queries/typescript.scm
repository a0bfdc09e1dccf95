; What a TypeScript or TSX file defines: what javascript.scm has, and types.

(class_declaration name: (type_identifier) @class) @scope
(abstract_class_declaration name: (type_identifier) @class) @scope
(class name: (type_identifier) @class) @scope
(variable_declarator name: (identifier) @class value: (class)) @scope
(method_definition name: [(property_identifier) (private_property_identifier)] @method) @scope
(method_signature name: (property_identifier) @method)
(abstract_method_signature name: (property_identifier) @method)
(public_field_definition name: [(property_identifier) (private_property_identifier)] @field)

(interface_declaration name: (type_identifier) @interface) @scope
(interface_body (property_signature name: (property_identifier) @field))
(type_alias_declaration name: (type_identifier) @type)
(type_alias_declaration
  name: (type_identifier) @parent
  value: (object_type (property_signature name: (property_identifier) @field)))
(enum_declaration name: (identifier) @enum) @scope
(enum_body name: (property_identifier) @constant)
(enum_assignment name: (property_identifier) @constant)
(internal_module name: (identifier) @module) @scope
(module name: (identifier) @module) @scope

(function_signature name: (identifier) @function)
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
