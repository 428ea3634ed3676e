// The linear layer and its two gradients: each is one product with an epilogue.
#include "gemm.cuh"

namespace mae { namespace cuda {

size_t linear_workspace(const linear_args& a) { return gemm_workspace(GemmLayout::NT, a.x.dtype, a.rows, a.n, a.k); }

void linear(const linear_args& a, Context& context) {
  GemmEpilogue epilogue;
  epilogue.bias = a.bias.f32();
  epilogue.residual = a.residual.data;
  epilogue.gelu = a.gelu != 0;
  epilogue.pre = a.pre.data;
  gemm(context, GemmLayout::NT, a.x.dtype, a.rows, a.n, a.k, a.x.data, a.w.data, a.y.data, a.y.dtype, epilogue, context.workspace);
}

// The result has the width k of the layer's input, and the layer's outputs n are summed over.
size_t linear_grad_input_workspace(const linear_grad_input_args& a) {
  return gemm_workspace(GemmLayout::NN, a.dy.dtype, a.rows, a.k, a.n);
}

void linear_grad_input(const linear_grad_input_args& a, Context& context) {
  GemmEpilogue epilogue;
  epilogue.dgelu_pre = a.pre.data;
  epilogue.residual = a.acc.data;
  gemm(context, GemmLayout::NN, a.dy.dtype, a.rows, a.k, a.n, a.dy.data, a.w.data, a.dx.data, a.dx.dtype, epilogue, context.workspace);
}

size_t linear_grad_weight_workspace(const linear_grad_weight_args& a) {
  return gemm_workspace(GemmLayout::TN, a.dy.dtype, a.n, a.k, a.rows);
}

void linear_grad_weight(const linear_grad_weight_args& a, Context& context) {
  GemmEpilogue epilogue;
  epilogue.accumulate = a.dw.accumulate();
  epilogue.a_sums = a.dbias.f32_mut();
  epilogue.a_sums_accumulate = a.dbias.accumulate();
  gemm(context, GemmLayout::TN, a.dy.dtype, a.n, a.k, a.rows, a.dy.data, a.x.data, a.dw.data, F32, epilogue, context.workspace);
}

}}  // namespace mae::cuda
