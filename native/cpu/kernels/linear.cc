// The three GEMMs of a fully connected layer (kernels.def).
#include "gemm.h"

namespace mae { namespace cpu { namespace MAE_ISA {
namespace {

Gemm forward(const linear_args& a) {
  Gemm g = {};
  g.m = a.rows, g.n = a.n, g.k = a.k, g.type = a.x.dtype;
  g.a = {a.x.data, true};
  g.b = {a.w.data, true};
  g.c.out = a.y.data, g.c.out_type = a.y.dtype;
  g.c.bias = a.bias.f32();
  g.c.gelu = a.gelu != 0, g.c.pre = g.c.gelu ? a.pre.data : nullptr;
  g.c.add = a.residual.data, g.c.add_type = a.y.dtype;
  return g;
}

// dx[rows, k] = dy[rows, n] · w[n, k]: the sum runs over n.
Gemm grad_input(const linear_grad_input_args& a) {
  Gemm g = {};
  g.m = a.rows, g.n = a.k, g.k = a.n, g.type = a.dy.dtype;
  g.a = {a.dy.data, true};
  g.b = {a.w.data, false};
  g.c.out = a.dx.data, g.c.out_type = a.dx.dtype;
  g.c.gelu_of = a.pre.data;
  g.c.add = a.acc.data, g.c.add_type = a.dx.dtype;
  return g;
}

// dw[n, k] = dyᵀ[n, rows] · x[rows, k]: the sum runs over rows.
Gemm grad_weight(const linear_grad_weight_args& a) {
  Gemm g = {};
  g.m = a.n, g.n = a.k, g.k = a.rows, g.type = a.x.dtype;
  g.a = {a.dy.data, false};
  g.b = {a.x.data, false};
  g.c.out = a.dw.data, g.c.out_type = F32, g.c.accumulate = a.dw.accumulate();
  g.split_k = true;
  g.row_sums = a.dbias.f32_mut(), g.accumulate_row_sums = a.dbias.accumulate();
  return g;
}

}  // namespace

void linear(const linear_args& a, Context& context) { gemm(forward(a), context); }
size_t linear_workspace(const linear_args& a) { return gemm_workspace(forward(a)); }

void linear_grad_input(const linear_grad_input_args& a, Context& context) { gemm(grad_input(a), context); }
size_t linear_grad_input_workspace(const linear_grad_input_args& a) { return gemm_workspace(grad_input(a)); }

void linear_grad_weight(const linear_grad_weight_args& a, Context& context) { gemm(grad_weight(a), context); }
size_t linear_grad_weight_workspace(const linear_grad_weight_args& a) { return gemm_workspace(grad_weight(a)); }

}}}  // namespace mae::cpu::MAE_ISA
