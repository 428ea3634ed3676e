// Where a patch's values lie in a picture [height, width, channels] (paper 3; MAE.md 1.6). Patches are numbered row-major.
#pragma once
#include "host_device.h"

namespace mae {
// Offset of the patch's first value (row 0, column 0, channel 0).
MAE_HD int64_t patch_origin(int64_t patch_index, int64_t width, int64_t channels, int64_t patch) {
  const int64_t per_row = width / patch;
  return ((patch_index / per_row) * patch * width + (patch_index % per_row) * patch) * channels;
}
// Offset from the origin of (row, column, channel) inside the patch.
MAE_HD int64_t patch_offset(int64_t row, int64_t column, int64_t channel, int64_t width, int64_t channels) {
  return (row * width + column) * channels + channel;
}
}  // namespace mae
