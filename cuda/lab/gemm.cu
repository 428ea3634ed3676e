// The GEMM implementations behind the linear layers, one against the other. Each is first checked, with every epilogue it serves, against a
// double-precision reference on the CPU, at sizes with and without ragged edges; then timed on the products of a training step:
//   1 one thread an element   2 float32 128x128   3 mma.sync 64x64   4 mma.sync 128x128   5, 6 wgmma 128x256, alone and in clusters of 2
//   7, 8 wgmma 128x128 in turn, alone and in clusters of 2   9 cuBLASLt (the best of at most 8 algorithms; MAE_CUBLASLT names the library)
// From the repository's root, in one line (the kernels themselves are compiled along):
//   nvcc -std=c++17 -O3 --expt-relaxed-constexpr -gencode arch=compute_90a,code=sm_90a cuda/lab/gemm.cu cuda/gemm.cu cuda/gemm_mma.cu
//        cuda/gemm_simt.cu cuda/gemm_wgmma.cu cuda/gemm_reduce.cu cuda/gemm_choice.cc cuda/cublaslt.cc -ldl -o gemm
//   gemm          checks everything, then times everything
//   gemm check    only checks
//   gemm time     only times
#include "lab.cuh"

#include <map>
#include <memory>

#include "../cublaslt.h"
#include "../gemm_kernels.h"

namespace mae { namespace lab {

using namespace mae::cuda;
using Doubles = std::vector<double>;

// Version 1: what the others are compared with for speed. Bias only.
template <class T>
__global__ void naive_kernel(GemmLayout layout, int64_t m, int64_t n, int64_t k, const T* a, const T* b, const float* bias, float* c) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= m * n) return;
  const int64_t row = at / n, column = at % n;
  float sum = bias ? bias[column] : 0.0f;
  for (int64_t i = 0; i < k; ++i) {
    const float x = to_float(layout == GemmLayout::TN ? a[i * m + row] : a[row * k + i]);
    const float y = to_float(layout == GemmLayout::NT ? b[column * k + i] : b[i * n + column]);
    sum += x * y;
  }
  c[at] = sum;
}

// What a product does besides multiplying.
enum Feature {
  kBias = 1,
  kResidual = 2,
  kWithGelu = 4,
  kWithGeluGrad = 8,
  kAccumulates = 16,
  kSums = 32,
  kSumsAccumulate = 64,
  kTokens = 128,
};

const char* layout_name(GemmLayout layout) { return layout == GemmLayout::NT ? "NT" : layout == GemmLayout::NN ? "NN" : "TN"; }

std::string features_name(int features) {
  const std::pair<int, const char*> names[] = {{kBias, "bias"},
                                               {kResidual, "residual"},
                                               {kWithGelu, "gelu"},
                                               {kWithGeluGrad, "gelu'"},
                                               {kAccumulates, "add"},
                                               {kSums, "sums"},
                                               {kSumsAccumulate, "sums add"},
                                               {kTokens, "tokens"}};
  std::string text;
  for (const auto& name : names)
    if (features & name.first) text += std::string(text.empty() ? "" : "+") + name.second;
  return text.empty() ? "plain" : text;
}

// One product with all its operands: T of a, b, C of c.
template <class T, class C>
struct Product {
  static constexpr int64_t kSequence = 7;  // kTokens: rows of the product in a sequence; m is a multiple of it

  GemmLayout layout;
  int64_t m, n, k;
  int features;
  int64_t rows_c;
  Array<T> a, b, gelu_pre;
  Array<C> residual, c, pre;
  Array<float> bias, sums, pos;
  Array<int32_t> ids;
  std::unique_ptr<Workspace> workspace;

  Product(GemmLayout layout, int64_t m, int64_t n, int64_t k, int features)
      : layout(layout), m(m), n(n), k(k), features(features), rows_c(features & kTokens ? m + m / kSequence : m), a(m * k), b(n * k),
        gelu_pre(features & kWithGeluGrad ? m * n : 1), residual(features & kResidual ? m * n : 1), c(rows_c * n),
        pre(features & kWithGelu ? m * n : 1), bias(n), sums(m), pos((kSequence + 1) * n), ids(ceil_div(m, kSequence) * kSequence) {
    const float scale = sqrtf(3.0f / float(k));  // results of about unit size
    a.random(1), b.random(2, -scale, scale), gelu_pre.random(3, -3, 3), residual.random(4), bias.random(5), pos.random(6);
    std::vector<int32_t> reversed(static_cast<size_t>(ids.count()));
    for (size_t i = 0; i < reversed.size(); ++i) reversed[i] = int32_t(kSequence - 1 - int64_t(i) % kSequence);
    ids.set(reversed);
    workspace = std::make_unique<Workspace>(gemm_workspace(layout, dtype_of<T>(), m, n, k));
  }

  GemmEpilogue epilogue() const {
    GemmEpilogue e;
    if (features & kBias) e.bias = bias.data();
    if (features & kResidual) e.residual = residual.data();
    if (features & kWithGelu) e.gelu = true, e.pre = pre.data();
    if (features & kWithGeluGrad) e.dgelu_pre = gelu_pre.data();
    e.accumulate = features & kAccumulates;
    if (features & kSums) e.a_sums = sums.data();
    e.a_sums_accumulate = features & kSumsAccumulate;
    if (features & kTokens) {
      e.sequences.rows = kSequence, e.sequences.pos = pos.data(), e.sequences.ids = ids.data(), e.sequences.ids_stride = kSequence;
    }
    return e;
  }
  std::vector<GemmChoice> candidates() const {
    return gemm_candidates(layout, dtype_of<T>(), m, n, k, a.data(), b.data(), c.data(), dtype_of<C>(), epilogue());
  }
  void choose(const GemmChoice& choice) const {
    set_gemm_choice(gemm_key(layout, dtype_of<T>(), m, n, k, dtype_of<C>(), epilogue()), choice);
  }
  void run() const {
    Context context = workspace->context();
    gemm(context, layout, dtype_of<T>(), m, n, k, a.data(), b.data(), c.data(), dtype_of<C>(), epilogue(), context.workspace);
  }
};

template <class T, class C>
bool check_product(GemmLayout layout, int64_t m, int64_t n, int64_t k, int features) {
  Product<T, C> p(layout, m, n, k, features);
  const Doubles a = p.a.doubles(), b = p.b.doubles(), bias = p.bias.doubles(), residual = p.residual.doubles(), pos = p.pos.doubles(),
                gelu_pre = p.gelu_pre.doubles();
  const std::vector<int32_t> ids = p.ids.get();
  const double root_half = sqrt(0.5), density = 1 / sqrt(2 * acos(-1.0));
  Doubles c, pre, sums(size_t(m), 0.0);
  std::vector<size_t> places;  // of c's elements in the memory of c
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double x = features & kBias ? bias[size_t(j)] : 0.0;
      for (int64_t t = 0; t < k; ++t)
        x += a[size_t(layout == GemmLayout::TN ? t * m + i : i * k + t)] * b[size_t(layout == GemmLayout::NT ? j * k + t : t * n + j)];
      pre.push_back(x);
      if (features & kWithGelu) x = 0.5 * x * (1 + erf(x * root_half));
      if (features & kWithGeluGrad) {
        const double g = gelu_pre[size_t(i * n + j)];
        x *= 0.5 * (1 + erf(g * root_half)) + g * exp(-0.5 * g * g) * density;
      }
      if (features & kResidual) x += residual[size_t(i * n + j)];
      int64_t place = i * n + j;
      if (features & kTokens) {
        x += pos[size_t((1 + ids[size_t(i)]) * n + j)];
        place += (i / p.kSequence + 1) * n;
      }
      c.push_back(x);
      places.push_back(size_t(place));
    }
  }
  for (int64_t t = 0; t < k && (features & kSums); ++t)
    for (int64_t i = 0; i < m; ++i) sums[size_t(i)] += a[size_t(t * m + i)];

  bool ok = true;
  for (const GemmChoice& choice : p.candidates()) {
    p.choose(choice);
    p.c.poison(), p.pre.poison(), p.sums.poison();
    Doubles expected = c, expected_sums = sums;
    if (features & kAccumulates) {
      const Doubles before = p.c.random(8).doubles();
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[places[i]];
    }
    if (features & kSumsAccumulate) {
      const Doubles before = p.sums.random(9).doubles();
      for (size_t i = 0; i < expected_sums.size(); ++i) expected_sums[i] += before[i];
    }
    p.run();
    const Doubles all = p.c.doubles();
    Doubles got;
    for (const size_t place : places) got.push_back(all[place]);
    // A library's product is rounded to bf16 before an epilogue that the library does not have, and once more after it.
    const bool twice = choice.implementation >= GemmImplementation::CublasLt && (features & (kWithGelu | kWithGeluGrad | kBias));
    const double tolerance = sizeof(C) == 2 ? kToleranceBf16 * (twice ? 2 : 1) : kToleranceF32;
    const std::string size = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    const std::string name = std::string(layout_name(layout)) + " " + size + (sizeof(T) == 2 ? " bf16" : " f32") +
                             (sizeof(C) == 2 ? ">bf16 " : ">f32 ") + features_name(features) + ", " + name_of(choice.implementation);
    ok &= check(name.c_str(), got, expected, tolerance);
    if (features & kWithGelu) ok &= check("    pre", p.pre.doubles(), pre, sizeof(C) == 2 ? kToleranceBf16 : kToleranceF32);
    if (features & kSums) ok &= check("    sums", p.sums.doubles(), expected_sums, kToleranceF32);
  }
  return ok;
}

template <class T, class C>
bool check_shape(int64_t m, int64_t n, int64_t k) {
  bool ok = true;
  for (int features : {0, int(kBias), kBias | kResidual, kBias | kWithGelu}) ok &= check_product<T, C>(GemmLayout::NT, m, n, k, features);
  ok &= check_product<T, C>(GemmLayout::NT, round_up(m, Product<T, C>::kSequence), n, k, kBias | kTokens);
  for (int features : {0, int(kResidual), int(kWithGeluGrad), kWithGeluGrad | kResidual})
    ok &= check_product<T, C>(GemmLayout::NN, m, n, k, features);
  if (sizeof(C) == 4) {
    for (int features : {0, int(kAccumulates), int(kSums), kAccumulates | kSums | kSumsAccumulate})
      ok &= check_product<T, C>(GemmLayout::TN, m, n, k, features);
  }
  return ok;
}

bool check_all() {
  bool ok = true;
  const int64_t shapes[][3] = {{128, 256, 64}, {300, 264, 200}, {257, 588, 96}, {96, 72, 588}, {61, 35, 43}, {1, 8, 8}, {520, 136, 1032}};
  for (const auto& s : shapes) {
    ok &= check_shape<bf16, bf16>(s[0], s[1], s[2]);
    ok &= check_shape<bf16, float>(s[0], s[1], s[2]);
    ok &= check_shape<float, float>(s[0], s[1], s[2]);
  }
  // A weight gradient over many tokens: k is split.
  ok &= check_product<bf16, float>(GemmLayout::TN, 136, 264, 5003, kAccumulates | kSums) &
        check_product<bf16, float>(GemmLayout::TN, 132, 60, 5003, kSums) & check_product<float, float>(GemmLayout::TN, 37, 41, 3001, kSums);
  // More tiles than multiprocessors: persistent blocks take several.
  ok &= check_product<bf16, bf16>(GemmLayout::NT, 3000, 1544, 136, kBias) & check_product<bf16, bf16>(GemmLayout::NN, 3000, 1544, 136, 0);
  return ok;
}

double tensor_ceiling = 0, copy_ceiling = 0;

// Times every implementation of one product; `bytes`: what memory must move at least.
template <class T, class C>
void time_product(const char* name, GemmLayout layout, int64_t m, int64_t n, int64_t k, int features) {
  Product<T, C> p(layout, m, n, k, features);
  p.c.random(8), p.sums.random(9);
  const double flops = 2.0 * double(m) * double(n) * double(k);
  double bytes = double(m + n) * double(k) * sizeof(T) + double(m * n) * sizeof(C);
  for (int reads : {kResidual, kAccumulates, kWithGelu, kWithGeluGrad})
    if (features & reads) bytes += double(m * n) * (reads == kWithGeluGrad ? sizeof(T) : sizeof(C));
  const double floor = std::max(flops / tensor_ceiling, bytes / copy_ceiling);
  printf("%s: %s %lldx%lldx%lld %s; floor %.1f us (%s)\n", name, layout_name(layout), (long long)m, (long long)n, (long long)k,
         features_name(features).c_str(), floor * 1e6, flops / tensor_ceiling > bytes / copy_ceiling ? "arithmetic" : "memory");
  std::map<std::string, double> best;
  for (const GemmChoice& choice : p.candidates()) {
    p.choose(choice);
    const double seconds = seconds_of([&] { p.run(); });
    double& known = best[name_of(choice.implementation)];
    if (known == 0 || seconds < known) known = seconds;
  }
  for (const auto& entry : best) {
    printf("  %-44s %9.1f us %7.0f TFLOP/s %5.1f%% of the floor\n", entry.first.c_str(), entry.second * 1e6, flops / entry.second * 1e-12,
           100 * floor / entry.second);
  }
}

void time_all() {
  copy_ceiling = copy_bandwidth();
  {
    // The ceiling of arithmetic: the fastest of all on a large square product.
    Product<bf16, bf16> p(GemmLayout::NT, 8192, 8192, 8192, 0);
    double best = 1e30;
    for (const GemmChoice& choice : p.candidates()) {
      p.choose(choice);
      const double seconds = seconds_of([&] { p.run(); }, 10);
      const double rate = 2.0 * pow(8192.0, 3) / seconds;
      printf("  8192^3 %-37s %9.1f us %7.0f TFLOP/s\n", name_of(choice.implementation), seconds * 1e6, rate * 1e-12);
      best = std::min(best, seconds);
    }
    tensor_ceiling = 2.0 * pow(8192.0, 3) / best;
  }
  printf("copy %.0f GB/s, 8192^3 %.0f TFLOP/s\n", copy_ceiling * 1e-9, tensor_ceiling * 1e-12);
  {
    Product<bf16, float> p(GemmLayout::NT, 2048, 2048, 2048, kBias);
    const double seconds = seconds_of([&] {
      naive_kernel<<<2048 * 2048 / 256, 256>>>(p.layout, p.m, p.n, p.k, p.a.data(), p.b.data(), p.bias.data(), p.c.data());
      CUDA_CHECK(cudaGetLastError());
    });
    printf("  2048^3 %-37s %9.1f us %7.1f TFLOP/s\n", "one thread an element", seconds * 1e6, 2.0 * pow(2048.0, 3) / seconds * 1e-12);
  }
  struct Model {
    const char* name;
    int64_t tokens, width, mlp;
  };
  const int64_t batch = 256;
  for (const Model& model : {Model{"ViT-B/16 encoder", 50, 768, 3072}, Model{"ViT-L/16 encoder", 50, 1024, 4096},
                             Model{"ViT-H/14 encoder", 65, 1280, 5120}, Model{"decoder of 16 x 16", 197, 512, 2048}}) {
    const int64_t rows = batch * model.tokens, d = model.width, h = model.mlp;
    printf("--- %s, batch %lld\n", model.name, (long long)batch);
    time_product<bf16, bf16>("qkv", GemmLayout::NT, rows, 3 * d, d, kBias);
    time_product<bf16, float>("proj", GemmLayout::NT, rows, d, d, kBias | kResidual);
    time_product<bf16, bf16>("fc1", GemmLayout::NT, rows, h, d, kBias | kWithGelu);
    time_product<bf16, float>("fc2", GemmLayout::NT, rows, d, h, kBias | kResidual);
    time_product<bf16, bf16>("fc2, gradient of the input", GemmLayout::NN, rows, h, d, kWithGeluGrad);
    time_product<bf16, bf16>("fc1, gradient of the input", GemmLayout::NN, rows, d, h, 0);
    time_product<bf16, bf16>("qkv, gradient of the input", GemmLayout::NN, rows, d, 3 * d, 0);
    time_product<bf16, float>("fc1, gradient of the weight", GemmLayout::TN, h, d, rows, kSums);
    time_product<bf16, float>("qkv, gradient of the weight", GemmLayout::TN, 3 * d, d, rows, kSums);
    time_product<bf16, float>("proj, gradient of the weight", GemmLayout::TN, d, d, rows, kSums);
  }
  time_product<bf16, bf16>("ViT-H/14 patches", GemmLayout::NT, batch * 65, 1280, 588, kBias);
  time_product<bf16, bf16>("ViT-H/14 prediction", GemmLayout::NT, batch * 192, 588, 512, kBias);
  time_product<float, float>("ViT-B/16 qkv in float32", GemmLayout::NT, batch * 50, 2304, 768, kBias);
}

}}  // namespace mae::lab

int main(int count, char** words) {
  const std::string only = count > 1 ? words[1] : "";
  return mae::lab::run_lab([&] {
    mae::lab::print_device();
    printf("cuBLASLt: %s\n", mae::cuda::cublaslt_description().c_str());
    const bool ok = only == "time" || mae::lab::check_all();
    if (only != "check") mae::lab::time_all();
    return ok;
  });
}
