; What a C# file defines.

(namespace_declaration name: (_) @module) @scope
(file_scoped_namespace_declaration name: (_) @module)
(class_declaration name: (identifier) @class) @scope
(record_declaration name: (identifier) @class) @scope
(struct_declaration name: (identifier) @struct) @scope
(interface_declaration name: (identifier) @interface) @scope
(enum_declaration name: (identifier) @enum) @scope
(enum_member_declaration name: (identifier) @constant)
(delegate_declaration name: (identifier) @type)

(method_declaration name: (identifier) @method) @scope
(constructor_declaration name: (identifier) @method) @scope
(destructor_declaration name: (identifier) @method) @scope
(local_function_statement name: (identifier) @function) @scope
(property_declaration name: (identifier) @field) @scope
(event_declaration name: (identifier) @field) @scope
(event_field_declaration (variable_declaration (variable_declarator name: (identifier) @field)))
(field_declaration
  (modifier "const")
  (variable_declaration (variable_declarator name: (identifier) @constant)))
(field_declaration (variable_declaration (variable_declarator name: (identifier) @field)))
