// attention and attention_grad: softmax(scale · q·kᵀ)·v per head, on packed qkv (Vaswani et al. 2017, 3.2; tiled as in Dao et al. 2022).
// Which kernel a shape gets is written in attention.cuh.
#include "attention.cuh"

namespace mae { namespace cuda {

void attention(const attention_args& a, Context& context) {
  if (a.qkv.dtype == BF16)
    attention_forward_bf16(a, context);
  else
    attention_forward_f32(a, context);
}

size_t attention_workspace(const attention_args&) { return 0; }

void attention_grad(const attention_grad_args& a, Context& context) {
  if (a.qkv.dtype == BF16)
    attention_backward_bf16(a, context);
  else
    attention_backward_f32(a, context);
}

size_t attention_grad_workspace(const attention_grad_args& a) {
  const bool on_chip = a.qkv.dtype == BF16 && attention_resident(a.tokens, a.head_dim);
  return on_chip ? 0 : attention_stats_bytes(a.batch, a.tokens, a.heads);
}

}}  // namespace mae::cuda
