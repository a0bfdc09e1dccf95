; What a Ruby file defines.

(class name: [(constant) @class (scope_resolution name: (_) @class)]) @scope
(module name: [(constant) @module (scope_resolution name: (_) @module)]) @scope
(method name: (_) @method) @scope
(singleton_method name: (_) @method) @scope
(alias name: (_) @method)
(assignment left: (constant) @constant)
