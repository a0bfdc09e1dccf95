; What a Go file defines. A method's parent is its receiver's type.

(package_clause (package_identifier) @module)
(function_declaration name: (identifier) @function) @scope

(method_declaration
  receiver: (parameter_list
    (parameter_declaration
      type: [
        (type_identifier) @parent
        (generic_type type: (type_identifier) @parent)
        (pointer_type (type_identifier) @parent)
        (pointer_type (generic_type type: (type_identifier) @parent))
      ]))
  name: (field_identifier) @method) @scope
(method_declaration name: (field_identifier) @method) @scope
(method_elem name: (field_identifier) @method)

(type_spec name: (type_identifier) @struct type: (struct_type)) @scope
(type_spec name: (type_identifier) @interface type: (interface_type)) @scope
(type_spec name: (type_identifier) @type)
(type_alias name: (type_identifier) @type)
(field_declaration name: (field_identifier) @field)

(source_file (const_declaration (const_spec (identifier) @constant)))
(source_file (var_declaration (var_spec name: (identifier) @variable)))
(source_file (var_declaration (var_spec_list (var_spec name: (identifier) @variable))))
