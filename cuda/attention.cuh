// Attention: what its files share on the host, and which kernels a shape gets.
//
// bf16 (mma.sync, sm_80 and later)
//   short      backward of tokens ≤ 72, head_dim ≤ 80: rows of scores stay in registers (attention_backward_short.cu)
//   resident   tokens ≤ 272, head_dim ≤ 80: a block has a whole head on chip (attention_forward.cu, attention_backward.cu)
//   streamed   everything else, tokens without limit, head_dim ≤ 128: tiles of 64 rows pass through shared memory (same files)
// f32          true float32 arithmetic, any shape with head_dim ≤ 128 (attention_f32.cu)
//
// No kernel keeps scores or probabilities in memory, none uses atomics, and sums run in an order that the shape alone decides.
#pragma once
#include <stdint.h>

#include "../native/kernel.h"

namespace mae { namespace cuda {

// The bucket of a head dimension: kernels are compiled for these widths and pad with zeros.
constexpr int attention_width(int64_t head_dim) { return head_dim <= 32 ? 32 : head_dim <= 64 ? 64 : head_dim <= 80 ? 80 : 128; }

// Two matrices of a head with rows up to a multiple of 16, and two floats per row, stay below the 99 KiB that every sm_8x has.
constexpr bool attention_resident(int64_t tokens, int64_t head_dim) { return tokens <= 272 && head_dim <= 80; }

constexpr int kAttentionTile = 64;                   // rows of a tile of the streamed kernels
constexpr int kStreamedWarps = kAttentionTile / 16;  // of their blocks: a warp owns 16 rows

// Statistics of the query rows, from backward's first kernel to its second: float2 [batch · heads, tokens up to a multiple of the tile].
constexpr int64_t attention_stats_rows(int64_t tokens) { return (tokens + kAttentionTile - 1) / kAttentionTile * kAttentionTile; }
constexpr size_t attention_stats_bytes(int64_t batch, int64_t tokens, int64_t heads) {
  return size_t(2 * batch * heads * attention_stats_rows(tokens)) * sizeof(float);
}

void attention_forward_bf16(const attention_args& a, Context& context);
void attention_backward_bf16(const attention_grad_args& a, Context& context);
void attention_forward_f32(const attention_args& a, Context& context);
void attention_backward_f32(const attention_grad_args& a, Context& context);

}}  // namespace mae::cuda
