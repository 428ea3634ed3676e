// The per-step scalars, as they lie in the control buffer (lib/graph/control.ts writes them; 64 bytes).
#pragma once
#include <stdint.h>

namespace mae {
struct Control {
  float lr;          // learning rate of this step
  float bias1;       // 1 − β₁ᵗ
  float bias2;       // 1 − β₂ᵗ
  float grad_scale;  // 1 / micro-batches of the step
  float max_norm;    // clip gradients to this global norm; 0 = no clipping
  uint32_t epoch;
  uint32_t step;
  uint32_t reserved[9];
};
static_assert(sizeof(Control) == 64, "lib/graph/control.ts assumes 64 bytes");
}  // namespace mae
