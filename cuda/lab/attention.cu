// The attention kernels, one against the other. Each is first checked against a double-precision reference on the CPU, then timed at the
// shapes of masked autoencoders (256 pictures) against three ceilings of the same run: copying, mma.sync and exponentials.
//   1 float32   2 streamed   3 resident, 16 rows a warp   4 resident, 32 rows a warp (and other blocks)   5 short (backward)
//   6 what the library launches
// From the repository's root:
//   nvcc -std=c++17 -O3 --expt-relaxed-constexpr -arch=sm_90a cuda/lab/attention.cu -o attention
//   attention            checks everything, then times everything
//   attention check      only checks
//   attention time       only times
#include "lab.cuh"

#include "../attention.cu"
#include "../attention_backward.cu"
#include "../attention_backward_short.cu"
#include "../attention_f32.cu"
#include "../attention_forward.cu"

namespace mae { namespace lab {

using namespace mae::cuda;
using Doubles = std::vector<double>;

struct Shape {
  int64_t batch, tokens, heads, head_dim;
  int64_t rows() const { return batch * tokens * heads; }
  int64_t out_count() const { return rows() * head_dim; }
  double scale() const { return 1.0 / sqrt(double(head_dim)); }
  // 4·T²·d products and sums a head forward, twice that backward (recomputation is not counted).
  double flops(bool backward) const { return (backward ? 8.0 : 4.0) * double(rows()) * double(tokens) * double(head_dim); }
  // Every operand once: qkv and out forward; qkv, dout and dqkv backward.
  double bytes(bool backward) const { return (backward ? 14.0 : 8.0) * double(out_count()); }
  double exponentials() const { return double(rows()) * double(tokens); }
};

// ---- reference -------------------------------------------------------------------------------------------------------------------------

struct Reference {
  Doubles out, dqkv;
};

static Reference reference_of(const Shape& s, const Doubles& qkv, const Doubles& dout) {
  Reference r = {Doubles(size_t(s.out_count())), Doubles(qkv.size())};
  const auto at = [&](int64_t b, int64_t t, int part, int64_t h) {
    return size_t((((b * s.tokens + t) * 3 + part) * s.heads + h) * s.head_dim);
  };
  const auto out_at = [&](int64_t b, int64_t t, int64_t h) { return size_t(((b * s.tokens + t) * s.heads + h) * s.head_dim); };
  const auto dot = [&](const double* x, const double* y) {
    double sum = 0;
    for (int64_t e = 0; e < s.head_dim; ++e) sum += x[e] * y[e];
    return sum;
  };
  const auto add = [&](double* y, double factor, const double* x) {
    for (int64_t e = 0; e < s.head_dim; ++e) y[e] += factor * x[e];
  };
  Doubles p(size_t(s.tokens)), dp(size_t(s.tokens));
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.tokens; ++i) {
        double top = -INFINITY, sum = 0, delta = 0;
        for (int64_t j = 0; j < s.tokens; ++j) top = std::max(top, p[j] = s.scale() * dot(&qkv[at(b, i, 0, h)], &qkv[at(b, j, 1, h)]));
        for (int64_t j = 0; j < s.tokens; ++j) sum += p[j] = exp(p[j] - top);
        for (int64_t j = 0; j < s.tokens; ++j) {
          p[j] /= sum;
          dp[j] = dot(&dout[out_at(b, i, h)], &qkv[at(b, j, 2, h)]);
          delta += p[j] * dp[j];
          add(&r.out[out_at(b, i, h)], p[j], &qkv[at(b, j, 2, h)]);
        }
        for (int64_t j = 0; j < s.tokens; ++j) {
          const double ds = s.scale() * p[j] * (dp[j] - delta);
          add(&r.dqkv[at(b, i, 0, h)], ds, &qkv[at(b, j, 1, h)]);
          add(&r.dqkv[at(b, j, 1, h)], ds, &qkv[at(b, i, 0, h)]);
          add(&r.dqkv[at(b, j, 2, h)], p[j], &dout[out_at(b, i, h)]);
        }
      }
  return r;
}

// ---- variants --------------------------------------------------------------------------------------------------------------------------

template <class T>
struct Buffers {
  Shape shape;
  Array<T> qkv, dout, out, dqkv;
  Workspace workspace;
  explicit Buffers(const Shape& s)
      : shape(s), qkv(3 * s.out_count()), dout(s.out_count()), out(s.out_count()), dqkv(3 * s.out_count()),
        workspace(attention_stats_bytes(s.batch, s.tokens, s.heads)) {
    qkv.random(1, -2.0f, 2.0f);
    dout.random(2, -1.0f, 1.0f);
  }
  attention_args forward() const {
    return {qkv.operand(), out.operand(), shape.batch, shape.tokens, shape.heads, shape.head_dim, shape.scale()};
  }
  attention_grad_args backward() const {
    return {qkv.operand(), dout.operand(), dqkv.operand(), shape.batch, shape.tokens, shape.heads, shape.head_dim, shape.scale()};
  }
  AttentionForward forward_kernel_args() const {
    const attention_args a = forward();
    return {static_cast<const bf16*>(a.qkv.data), static_cast<bf16*>(a.out.data),
            attention_shape(a.tokens, a.heads, a.head_dim, a.scale)};
  }
  AttentionBackward backward_kernel_args() const {
    const attention_grad_args a = backward();
    return {static_cast<const bf16*>(a.qkv.data), static_cast<const bf16*>(a.dout.data), static_cast<bf16*>(a.dqkv.data),
            static_cast<float2*>(workspace.context().workspace), attention_shape(a.tokens, a.heads, a.head_dim, a.scale)};
  }
};

struct Variant {
  std::string name;
  bool backward;
  std::function<void()> run;
};

template <int D>
static void add_resident(std::vector<Variant>& list, const Buffers<bf16>& b, Context& c) {
  const int64_t n = b.shape.batch;
  const AttentionForward f = b.forward_kernel_args();
  const AttentionBackward g = b.backward_kernel_args();
  list.push_back({"3 resident, 16 rows", false, [=]() mutable { launch_forward_resident<D, 1, 4, 3>(f, n, c); }});
  list.push_back({"4 resident, 32 rows", false, [=]() mutable { launch_forward_resident<D, 2, 4, 2>(f, n, c); }});
  list.push_back({"3 resident, 16 rows", true, [=]() mutable { launch_backward_resident<D, 1, 4, 2>(g, n, c); }});
  if constexpr (D == 32) {
    list.push_back({"4 resident, 32 rows, 4 blocks", false, [=]() mutable { launch_forward_resident<32, 2, 4, 4>(f, n, c); }});
    list.push_back({"4 resident, 32 rows, 7 warps", false, [=]() mutable { launch_forward_resident<32, 2, 7, 2>(f, n, c); }});
    list.push_back({"4 resident, 32 rows, 2 blocks", true, [=]() mutable { launch_backward_resident<32, 2, 4, 2>(g, n, c); }});
    list.push_back({"4 resident, 32 rows, 3 blocks", true, [=]() mutable { launch_backward_resident<32, 2, 4, 3>(g, n, c); }});
  }
}

// Every bf16 variant that can do this shape, the library's own last.
static std::vector<Variant> variants_of(const Buffers<bf16>& b, Context c) {
  std::vector<Variant> list;
  const Shape& s = b.shape;
  const AttentionForward f = b.forward_kernel_args();
  const AttentionBackward g = b.backward_kernel_args();
  const auto add_streamed = [&](auto forward, auto backward) {
    list.push_back({"2 streamed", false, [=]() mutable { forward(f, s.batch, c); }});
    list.push_back({"2 streamed", true, [=]() mutable { backward(g, s.batch, c); }});
  };
  const int width = attention_width(s.head_dim);
  if (width == 32) add_streamed(launch_forward_streamed<32, 4>, launch_backward_streamed<32, 32, 4>);
  if (width == 64) add_streamed(launch_forward_streamed<64, 3>, launch_backward_streamed<64, 64, 2>);
  if (width == 80) add_streamed(launch_forward_streamed<80, 2>, launch_backward_streamed<80, 80, 2>);
  if (width == 128) add_streamed(launch_forward_streamed<128, 2>, launch_backward_streamed<128, 64, 2>);
  if (attention_resident(s.tokens, s.head_dim)) {
    if (width == 32) add_resident<32>(list, b, c);
    if (width == 64) add_resident<64>(list, b, c);
    if (width == 80) add_resident<80>(list, b, c);
    if (s.tokens <= 72) list.push_back({"5 short", true, [=]() mutable { attention_backward_short(g, s.batch, c); }});
  }
  const attention_args fa = b.forward();
  const attention_grad_args ga = b.backward();
  list.push_back({"6 attention", false, [=]() mutable { attention(fa, c); }});
  list.push_back({"6 attention_grad", true, [=]() mutable { attention_grad(ga, c); }});
  return list;
}

// ---- checks ----------------------------------------------------------------------------------------------------------------------------

// P and dS are rounded to bf16 before their products: 2⁻⁹ each, some 2.4e-3 of a result's size on average, and 1.2e-2 in the worst of 10⁵.
constexpr double kToleranceAttention = 1.0 / 64;

static bool check_results(const char* name, bool backward, const Shape& s, const Doubles& got, const Reference& r, double tolerance) {
  if (!backward) return check((std::string(name) + ": out").c_str(), got, r.out, tolerance);
  bool ok = true;
  const char* parts[] = {": dq", ": dk", ": dv"};
  for (int part = 0; part < 3; ++part) {  // apart: their sizes differ
    Doubles mine, theirs;
    const int64_t width = s.heads * s.head_dim;
    for (int64_t i = 0; i < int64_t(got.size()); ++i) {
      if (i / width % 3 != part) continue;
      mine.push_back(got[size_t(i)]);
      theirs.push_back(r.dqkv[size_t(i)]);
    }
    ok &= check((std::string(name) + parts[part]).c_str(), mine, theirs, tolerance);
  }
  return ok;
}

static bool check_shape(const Shape& s) {
  printf("tokens %lld, head_dim %lld\n", (long long)s.tokens, (long long)s.head_dim);
  bool ok = true;
  {
    Buffers<bf16> b(s);
    const Reference r = reference_of(s, b.qkv.doubles(), b.dout.doubles());
    for (const Variant& v : variants_of(b, b.workspace.context())) {
      b.out.poison();
      b.dqkv.poison();
      v.run();
      ok &= check_results(v.name.c_str(), v.backward, s, v.backward ? b.dqkv.doubles() : b.out.doubles(), r, kToleranceAttention);
    }
  }
  Buffers<float> b(s);
  const Reference r = reference_of(s, b.qkv.doubles(), b.dout.doubles());
  Context c = b.workspace.context();
  attention(b.forward(), c);
  ok &= check_results("1 float32", false, s, b.out.doubles(), r, kToleranceF32);
  attention_grad(b.backward(), c);
  return check_results("1 float32", true, s, b.dqkv.doubles(), r, kToleranceF32) && ok;
}

static bool check_all() {
  bool ok = true;
  for (const int64_t head_dim : {32, 64, 80})
    for (const int64_t tokens : {2, 8, 17, 50, 56, 57, 65, 72, 73, 99, 197, 257, 272, 300}) ok &= check_shape({2, tokens, 3, head_dim});
  for (const int64_t head_dim : {8, 24, 40, 72, 96, 128}) ok &= check_shape({1, 53, 2, head_dim}) & check_shape({1, 273, 2, head_dim});
  return check_shape({1, 1025, 2, 32}) & check_shape({1, 577, 2, 64}) && ok;
}

// ---- timing ----------------------------------------------------------------------------------------------------------------------------

// Eight independent products in flight per warp, operands in registers.
static __global__ void mma_kernel(float* out, int turns) {
  float c[8][4] = {};
  const uint32_t x = 0x3f803f80u + threadIdx.x * 0x10001u;  // two bf16 between 1 and 4: zeros draw less power and time better than data
  const uint32_t a[4] = {x, x + 1, x + 2, x + 3};
  for (int turn = 0; turn < turns; ++turn)
#pragma unroll
    for (int i = 0; i < 8; ++i) multiply(c[i], a, a[0] + i, a[1] + i);
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  if (sum == 123.0f) out[0] = sum;
}
static __global__ void exp2_kernel(float* out, int turns) {
  float x[8];
  for (int i = 0; i < 8; ++i) x[i] = -float(threadIdx.x + i);
  for (int turn = 0; turn < turns; ++turn)
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = exp2_fast(x[i]);
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += x[i];
  if (sum == 123.0f) out[0] = sum;
}

struct Ceilings {
  double copy, mma, exp2;  // bytes, floating-point operations, exponentials per second
};

static Ceilings ceilings() {
  Array<float> out(1);
  const int blocks = 132 * 16, threads = 256, turns = 2000;
  const double mma_seconds = seconds_of([&] { mma_kernel<<<blocks, threads>>>(out.data(), turns); });
  const double exp2_seconds = seconds_of([&] { exp2_kernel<<<blocks, threads>>>(out.data(), turns); });
  const double warps = double(blocks) * threads / 32, repeats = 8.0 * turns;
  return {copy_bandwidth(), warps * repeats * 2 * 16 * 8 * 16 / mma_seconds, warps * 32 * repeats / exp2_seconds};
}

static void time_shape(const char* name, const Shape& s, const Ceilings& top) {
  printf("%s: %lld x %lld heads of %lld x %lld\n", name, (long long)s.batch, (long long)s.heads, (long long)s.tokens,
         (long long)s.head_dim);
  Buffers<bf16> b(s);
  for (const bool backward : {false, true}) {
    const double bounds[] = {s.bytes(backward) / top.copy, s.flops(backward) / top.mma, s.exponentials() / top.exp2};
    printf(" %s, at least %.1f us of copying, %.1f of mma.sync, %.1f of exponentials\n", backward ? "backward" : "forward", bounds[0] * 1e6,
           bounds[1] * 1e6, bounds[2] * 1e6);
    for (const Variant& v : variants_of(b, b.workspace.context())) {
      if (v.backward != backward) continue;
      const double seconds = seconds_of(v.run);
      print_bandwidth(v.name.c_str(), seconds, s.bytes(backward), top.copy);
      printf("  %44s %9.1f TFLOP/s %5.1f%% of mma.sync\n", "", s.flops(backward) / seconds * 1e-12,
             100.0 * s.flops(backward) / seconds / top.mma);
    }
  }
}

static void time_all() {
  const Ceilings top = ceilings();
  printf("copy %.0f GB/s, mma.sync %.0f TFLOP/s, exp2 %.2f T/s\n", top.copy * 1e-9, top.mma * 1e-12, top.exp2 * 1e-12);
  time_shape("ViT-B/16 encoder, 75% masked", {256, 50, 12, 64}, top);
  time_shape("ViT-L/16 encoder, 75% masked", {256, 50, 16, 64}, top);
  time_shape("ViT-H/14 encoder, 75% masked", {256, 65, 16, 80}, top);
  time_shape("decoder of patches of 16", {256, 197, 16, 32}, top);
  time_shape("decoder of patches of 14", {256, 257, 16, 32}, top);
  time_shape("ViT-B/16 encoder, unmasked", {256, 197, 12, 64}, top);
  time_shape("ViT-H/14 encoder, unmasked", {256, 257, 16, 80}, top);
  time_shape("ViT-B/16 at 384 pixels, unmasked", {64, 577, 12, 64}, top);
}

}}  // namespace mae::lab

int main(int count, char** words) {
  const std::string only = count > 1 ? words[1] : "";
  return mae::lab::run_lab([&] {
    mae::lab::print_device();
    const bool ok = only == "time" || mae::lab::check_all();
    if (only != "check") mae::lab::time_all();
    return ok;
  });
}
