// Crop, resize, flip: one picture [height, width, channels] to one picture of the batch. Plain C++, no Node headers.
//
// The resize is Pillow's for 8-bit pictures, and so torchvision's with antialias: separable bicubic (a = −0.5) whose support grows with the
// scale when shrinking; weights in fixed point with 22 fractional bits; rows first, rounded to 8 bits, then columns.
// Source of the convolution: Keys, "Cubic convolution interpolation for digital image processing", 1981. The bits equal Pillow's.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <vector>

namespace mae { namespace data {

// What to take of a picture. The rectangle (top, left, height, width) is cut out, resized as a whole to resized_height × resized_width,
// and the window of the output's size at (offset_top, offset_left) of that is written, mirrored left to right if flip.
// lib/data/augment.ts decides these numbers and lib/data/nativeData.ts lays them out as int32 in this order.
struct Crop {
  int32_t source_height, source_width;
  int32_t top, left, height, width;
  int32_t resized_height, resized_width;
  int32_t offset_top, offset_left;
  int32_t flip;

  bool resamples() const { return resized_height != height || resized_width != width; }
  // Inside the picture, and the output window inside the resized rectangle.
  bool valid(int32_t out_height, int32_t out_width) const;
};
static_assert(sizeof(Crop) == 44, "lib/data/nativeData.ts writes 11 int32");

constexpr int kMaxResampledChannels = 4;  // pictures with more can be cut but not resized

// One axis of a resize: output position i is Σ_t weights[i · taps + t] · input[first[i] + t], t < count[i].
struct Axis {
  int taps;
  std::vector<int32_t> first, count, weights;
};

// Memory that a thread reuses from picture to picture.
struct Scratch {
  Axis columns, rows;
  std::vector<int32_t> quad, resized_rows;
  std::vector<uint8_t> line;
};

// out: uint8 [out_height, out_width, channels]. `rows` points at row crop.top of the picture (what lies above need not be in memory);
// nothing beyond the crop's last pixel is read. Needs crop.valid() and channels ≤ kMaxResampledChannels.
void resize_crop(const uint8_t* rows, const Crop& crop, int channels, uint8_t* out, int out_height, int out_width, Scratch& scratch);

// The same without a resize (crop.resamples() is false), for values of any size: pixel_bytes = channels · bytes per value.
void copy_crop(const uint8_t* rows, const Crop& crop, size_t pixel_bytes, uint8_t* out, int out_height, int out_width);

}}  // namespace mae::data
