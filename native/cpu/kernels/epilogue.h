// What the GEMM does to a finished tile of C on its way to memory (struct Epilogue in gemm.h).
#pragma once
#include "../lanes.h"
#include "gemm.h"
#include "vmath.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// Whether the product is the result: such tiles go from the registers to C.
static inline bool is_plain(const Epilogue& e) {
  return e.out_type == F32 && !e.bias && !e.pre && !e.gelu && !e.gelu_of && !e.add && e.token_rows == 0;
}

// Rows of the product → rows of `out` and of `add`.
struct RowPair {
  int64_t out, add;
};
static inline RowPair map_row(const Epilogue& e, int64_t row) {
  if (e.token_rows == 0) return {row, row};
  const int64_t b = row / e.token_rows, j = row % e.token_rows;
  return {row + b + 1, 1 + (e.ids ? e.ids[b * e.id_stride + j] : j)};
}

template <class Out, class Add, class Act>
static void finish_rows(const Epilogue& e, int64_t n, const float* tile, int64_t stride, int64_t row, int64_t column, int rows, int columns) {
  const float* bias = e.bias ? e.bias + column : nullptr;
  for (int r = 0; r < rows; ++r, tile += stride) {
    const RowPair at = map_row(e, row + r);
    const int64_t here = (row + r) * n + column;
    Out* out = static_cast<Out*>(e.out) + at.out * n + column;
    Out* pre = e.pre ? static_cast<Out*>(e.pre) + here : nullptr;
    const Act* gelu_of = e.gelu_of ? static_cast<const Act*>(e.gelu_of) + here : nullptr;
    const Add* add = e.add ? static_cast<const Add*>(e.add) + at.add * n + column : nullptr;
    for_lanes(columns, [&](int64_t j, auto lanes) {
      vf c = load(tile + j);
      if (bias) c += load(bias + j, lanes);
      if (pre) store(pre + j, c, lanes);
      if (e.gelu) c = gelu(c);
      if (gelu_of) c *= gelu_grad(load(gelu_of + j, lanes));
      if (add) c += load(add + j, lanes);
      if (e.accumulate) c += load(out + j, lanes);
      store(out + j, c, lanes);
    });
  }
}

// Applies the epilogue to a tile of `rows` × `columns` values whose first is element (row, column) of the product [.., n].
static void finish_tile(const Epilogue& e, DType act, int64_t n, const float* tile, int64_t stride, int64_t row, int64_t column, int rows,
                        int columns) {
  typedef void Finish(const Epilogue&, int64_t, const float*, int64_t, int64_t, int64_t, int, int);
  static Finish* const table[2][2][2] = {  // [out][add][act], each f32 or bf16
      {{finish_rows<float, float, float>, finish_rows<float, float, uint16_t>},
       {finish_rows<float, uint16_t, float>, finish_rows<float, uint16_t, uint16_t>}},
      {{finish_rows<uint16_t, float, float>, finish_rows<uint16_t, float, uint16_t>},
       {finish_rows<uint16_t, uint16_t, float>, finish_rows<uint16_t, uint16_t, uint16_t>}}};
  table[e.out_type == BF16][e.add && e.add_type == BF16][act == BF16](e, n, tile, stride, row, column, rows, columns);
}

}}}  // namespace mae::cpu::MAE_ISA
