// bf16 of the emulated CUDA toolkit: conversion to nearest even; NaN becomes 0x7fff, as on the GPU.
#pragma once
#include "../../../native/shared/bf16.h"

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return mae::bf16_to_f32(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {x != x ? uint16_t(0x7fff) : mae::f32_to_bf16(x)}; }
