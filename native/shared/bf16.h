// bfloat16 as its bits: the upper half of a float32, rounded to nearest even; NaN stays NaN.
#pragma once
#include <string.h>
#include "host_device.h"

namespace mae {
MAE_HD float bf16_to_f32(uint16_t h) {
  const uint32_t u = uint32_t(h) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
MAE_HD uint16_t f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
}  // namespace mae
