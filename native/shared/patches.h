// Where a patch's values lie in a picture [height, width, channels] (paper 3). Patches are numbered row-major.
#pragma once
#include "host_device.h"

namespace mae {
// Offset of the patch's first value (row 0, column 0, channel 0). 32-bit divisions: a GPU makes a 64-bit one of some 70 instructions.
MAE_HD int64_t patch_origin(int32_t patch_index, int32_t width, int32_t channels, int32_t patch) {
  const int32_t per_row = width / patch, row = patch_index / per_row, column = patch_index - row * per_row;
  return (int64_t(row) * width + column) * patch * channels;
}
// Offset from the origin of (row, column, channel) inside the patch.
MAE_HD int64_t patch_offset(int64_t row, int64_t column, int64_t channel, int64_t width, int64_t channels) {
  return (row * width + column) * channels + channel;
}
}  // namespace mae
