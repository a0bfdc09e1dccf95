; What a PHP file defines.

(namespace_definition name: (namespace_name) @module body: (_)) @scope
(namespace_definition name: (namespace_name) @module)
(class_declaration name: (name) @class) @scope
(interface_declaration name: (name) @interface) @scope
(trait_declaration name: (name) @interface) @scope
(enum_declaration name: (name) @enum) @scope
(enum_case name: (name) @constant)

(function_definition name: (name) @function) @scope
(method_declaration name: (name) @method) @scope
(property_element name: (variable_name (name) @field))
(property_promotion_parameter name: (variable_name (name) @field))
(const_element . (name) @constant)
