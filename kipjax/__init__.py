"""kipjax: dataset distillation in JAX, all methods of the field behind one small contract."""
