// The instruction sets that the CPU kernels are compiled for, and which of them this machine can run.
#pragma once

namespace mae { namespace cpu {

// In rising order: each one's machines run all those before it.
enum class Isa { portable, avx2, avx512, avx512bf16 };

constexpr int kIsaCount = 4;

// "portable", "avx2", "avx512", "avx512bf16": the values of MAE_CPU.
const char* isa_name(Isa isa);

// Finds the instruction set of that name. False, and *isa untouched, when no instruction set has it (text may be null).
bool parse_isa(const char* text, Isa* isa);

// Whether this binary holds kernels for it, the processor has it and the operating system saves its registers.
bool isa_supported(Isa isa);

// The last supported one.
Isa best_isa();

}}  // namespace mae::cpu
