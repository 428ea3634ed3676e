// The kernels that memory bounds: LayerNorm, masking, tokens, loss, optimizer, gather. Version 1 of each is the plain one; the last is what
// the library launches. Shapes: ViT-B/16 of the paper (50 encoder tokens of 768, 197 decoder tokens of 512), 256 pictures; others where
// named.
//   memory_bound            checks everything, then times everything
//   memory_bound check      only checks
//   memory_bound time       only times
#include "lab.cuh"

#include <math.h>

#include <numeric>
#include <random>

#include "../elementwise.cu"
#include "../layer_norm.cu"
#include "../masked_mse.cu"
#include "../optimizer.cu"
#include "../partial_sums.cu"
#include "../patch_gather.cu"
#include "../random_mask.cu"
#include "../tokens.cu"

// In lab itself: nvcc does not accept a second unnamed namespace beside that of the kernels.
namespace mae { namespace lab {

using namespace mae::cuda;
using Doubles = std::vector<double>;
static double ceiling = 0;  // bytes per second of a copy

template <class T>
constexpr double tolerance() {
  return sizeof(T) == 2 ? kToleranceBf16 : kToleranceF32;
}

Array<Control>* control_on_device() {
  static std::unique_ptr<Array<Control>> array;
  if (!array) {
    Control control = {};
    control.lr = 1.5e-3f, control.bias1 = 0.2f, control.bias2 = 0.1f, control.grad_scale = 0.5f, control.max_norm = 3.0f, control.epoch = 7;
    array = std::make_unique<Array<Control>>(std::vector<Control>{control});
  }
  return array.get();
}
Operand control_operand() { return {control_on_device()->data(), F32, 0}; }

// Random permutations [batch, count] and their inverses.
std::vector<int32_t> permutations(int64_t batch, int64_t count) {
  std::mt19937 random(5);
  std::vector<int32_t> ids(size_t(batch * count));
  for (int64_t b = 0; b < batch; ++b) {
    std::iota(ids.begin() + b * count, ids.begin() + (b + 1) * count, 0);
    std::shuffle(ids.begin() + b * count, ids.begin() + (b + 1) * count, random);
  }
  return ids;
}
std::vector<int32_t> inverses(const std::vector<int32_t>& ids, int64_t count) {
  std::vector<int32_t> inverse(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) inverse[i / size_t(count) * size_t(count) + size_t(ids[i])] = int32_t(i % size_t(count));
  return inverse;
}

// ---- LayerNorm -------------------------------------------------------------------------------------------------------------------------

// x, dy, weight, bias and all outputs of one shape.
template <class X, class Y>
struct LayerNormCase {
  int64_t rows, width;
  Array<X> x, acc, dx;
  Array<Y> y, dy;
  Array<bf16> dx_low;
  Array<float> weight, bias, mean, rstd, dweight, dbias;
  LayerNormCase(int64_t rows, int64_t width)
      : rows(rows),
        width(width),
        x(rows * width),
        acc(rows * width),
        dx(rows * width),
        y(rows * width),
        dy(rows * width),
        dx_low(rows * width),
        weight(width),
        bias(width),
        mean(rows),
        rstd(rows),
        dweight(width),
        dbias(width) {
    x.random(1), acc.random(2), dy.random(3), weight.random(4, 0.5f, 1.5f), bias.random(5);
  }
  layer_norm_args forward() const {
    return {x.operand(), weight.operand(), bias.operand(), y.operand(), mean.operand(), rstd.operand(), rows, width, 1e-6};
  }
  layer_norm_grad_args backward() const {
    return {x.operand(),  dy.operand(), weight.operand(), mean.operand(),    rstd.operand(),  acc.operand(),
            dx.operand(), dx_low.operand(), dweight.operand(), dbias.operand(), rows, width};
  }
  void run_forward(int version) {
    const layer_norm_args a = forward();
    Context context = {};
    if (version == 2) return layer_norm(a, context);
    launch("layer_norm v1", layer_norm_general_kernel<X, Y>, unsigned(rows), kGeneralThreads, 0, context, x.data(), weight.data(),
           bias.data(), y.data(), mean.data(), rstd.data(), width, 1e-6f);
  }
  void run_backward(int version, const Workspace& workspace) {
    const layer_norm_grad_args a = backward();
    Context context = workspace.context();
    if (version == 2) return layer_norm_grad(a, context);
    const RowChunks chunks = cut_rows(rows);
    float* partials = static_cast<float*>(context.workspace);
    const GradArgs<X, Y> args = {x.data(),   dy.data(),     weight.data(), mean.data(), rstd.data(),  acc.data(),
                                 dx.data(),  dx_low.data(), partials,      rows,        chunks.size,  width};
    launch("layer_norm_grad v1", layer_norm_grad_general_kernel<X, Y>, unsigned(chunks.count), kGeneralThreads, 0, context, args);
    sum_partials(context, partials, chunks.count, width, a.dweight, &a.dbias);
  }
};

template <class X, class Y>
bool check_layer_norm(int64_t rows, int64_t width) {
  printf("layer_norm [%lld, %lld], %zu-byte stream, %zu-byte act\n", (long long)rows, (long long)width, sizeof(X), sizeof(Y));
  LayerNormCase<X, Y> c(rows, width);
  const Doubles x = c.x.doubles(), dy = c.dy.doubles(), acc = c.acc.doubles(), weight = c.weight.doubles(), bias = c.bias.doubles();
  Doubles y(x.size()), dx(x.size()), dweight(size_t(width), 0.0), dbias(size_t(width), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    const size_t at = size_t(r * width), n = size_t(width);
    double mean = 0, variance = 0, mean_g = 0, mean_gx = 0;
    for (size_t i = 0; i < n; ++i) mean += x[at + i] / double(n);
    for (size_t i = 0; i < n; ++i) variance += (x[at + i] - mean) * (x[at + i] - mean) / double(n);
    const double rstd = 1 / sqrt(variance + 1e-6);
    for (size_t i = 0; i < n; ++i) {
      const double x_hat = (x[at + i] - mean) * rstd, g = dy[at + i] * weight[i];
      y[at + i] = x_hat * weight[i] + bias[i];
      dweight[i] += dy[at + i] * x_hat;
      dbias[i] += dy[at + i];
      mean_g += g / double(n);
      mean_gx += g * x_hat / double(n);
    }
    for (size_t i = 0; i < n; ++i) {
      const double x_hat = (x[at + i] - mean) * rstd;
      dx[at + i] = rstd * (dy[at + i] * weight[i] - mean_g - x_hat * mean_gx) + acc[at + i];
    }
  }
  bool ok = true;
  for (int version = 1; version <= 2; ++version) {
    printf(" version %d\n", version);
    c.y.poison(), c.mean.poison(), c.rstd.poison(), c.dx.poison(), c.dx_low.poison(), c.dweight.poison(), c.dbias.poison();
    const Workspace workspace(layer_norm_grad_workspace(c.backward()));
    c.run_forward(version);
    c.run_backward(version, workspace);
    ok &= check("y", c.y.doubles(), y, tolerance<Y>());
    ok &= check("dx", c.dx.doubles(), dx, tolerance<X>());
    ok &= check("dx_low", c.dx_low.doubles(), dx, kToleranceBf16);
    ok &= check("dweight", c.dweight.doubles(), dweight, kToleranceF32);
    ok &= check("dbias", c.dbias.doubles(), dbias, kToleranceF32);
  }
  return ok;
}

void time_layer_norm(int64_t rows, int64_t width) {
  printf("layer_norm [%lld, %lld], f32 stream, bf16 act\n", (long long)rows, (long long)width);
  LayerNormCase<float, bf16> c(rows, width);
  const Workspace workspace(layer_norm_grad_workspace(c.backward()));
  const double elements = double(rows * width);
  for (int version = 1; version <= 2; ++version) {
    print_bandwidth(("forward, version " + std::to_string(version)).c_str(), seconds_of([&] { c.run_forward(version); }),
                    elements * (4 + 2), ceiling);
  }
  for (int version = 1; version <= 2; ++version) {
    print_bandwidth(("backward with acc, dx_low, version " + std::to_string(version)).c_str(),
                    seconds_of([&] { c.run_backward(version, workspace); }), elements * (4 + 2 + 4 + 4 + 2), ceiling);
  }
}

// ---- Random mask -----------------------------------------------------------------------------------------------------------------------

// Version 1: the place of a patch is the number of smaller keys: patches² comparisons in shared memory, no rounds.
__global__ void random_mask_by_counting(const Control* control, const int32_t* indices, int32_t* ids, int32_t* restore, float* mask,
                                        int patches, int visible, uint32_t seed) {
  extern __shared__ uint64_t keys[];
  const int64_t first = int64_t(blockIdx.x) * patches;
  for (int p = threadIdx.x; p < patches; p += blockDim.x)
    keys[p] = uint64_t(mask_noise_bits(seed, control->epoch, uint32_t(indices[blockIdx.x]), uint32_t(p))) << 32 | uint32_t(p);
  __syncthreads();
  for (int p = threadIdx.x; p < patches; p += blockDim.x) {
    const uint64_t mine = keys[p];
    int place = 0;
    for (int q = 0; q < patches; ++q) place += keys[q] < mine;
    ids[first + place] = p;
    restore[first + p] = place;
    mask[first + p] = place < visible ? 0.0f : 1.0f;
  }
}

struct MaskCase {
  int64_t batch, patches, visible;
  Array<int32_t> indices, ids, restore;
  Array<float> mask;
  MaskCase(int64_t batch, int64_t patches)
      : batch(batch),
        patches(patches),
        visible(patches / 4),
        indices(permutations(1, batch)),
        ids(batch * patches),
        restore(batch * patches),
        mask(batch * patches) {}
  void run(int version) {
    Context context = {};
    const random_mask_args a = {control_operand(), indices.operand(), absent(), ids.operand(), restore.operand(), mask.operand(),
                                batch,             patches,           visible,  11};
    if (version == 2) return random_mask(a, context);
    launch("random_mask v1", random_mask_by_counting, unsigned(batch), unsigned(std::min<int64_t>(round_up(patches, kWarp), 1024)),
           size_t(patches) * sizeof(uint64_t), context, control_on_device()->data(), indices.data(), ids.data(), restore.data(),
           mask.data(), int(patches), int(visible), 11u);
  }
};

bool check_random_mask(int64_t batch, int64_t patches) {
  printf("random_mask [%lld, %lld]\n", (long long)batch, (long long)patches);
  MaskCase c(batch, patches);
  const std::vector<int32_t> indices = c.indices.get();
  Doubles ids, restore(size_t(batch * patches)), mask(size_t(batch * patches));
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<std::pair<uint32_t, int>> keys;
    for (int p = 0; p < patches; ++p) keys.push_back({mask_noise_bits(11, 7, uint32_t(indices[size_t(b)]), uint32_t(p)), p});
    std::sort(keys.begin(), keys.end());
    for (int64_t j = 0; j < patches; ++j) {
      const size_t at = size_t(b * patches + keys[size_t(j)].second);
      ids.push_back(keys[size_t(j)].second);
      restore[at] = double(j);
      mask[at] = j < c.visible ? 0 : 1;
    }
  }
  bool ok = true;
  for (int version = 1; version <= 2; ++version) {
    printf(" version %d\n", version);
    c.ids.poison(), c.restore.poison(), c.mask.poison();
    c.run(version);
    ok &= check("ids", c.ids.doubles(), ids, 0) & check("restore", c.restore.doubles(), restore, 0) &
          check("mask", c.mask.doubles(), mask, 0);
  }
  return ok;
}

void time_random_mask(int64_t batch, int64_t patches) {
  printf("random_mask [%lld, %lld]\n", (long long)batch, (long long)patches);
  MaskCase c(batch, patches);
  for (int version = 1; version <= 2; ++version) {
    print_bandwidth(("version " + std::to_string(version)).c_str(), seconds_of([&] { c.run(version); }), double(batch * patches) * 12,
                    ceiling);
  }
}

// ---- Tokens ----------------------------------------------------------------------------------------------------------------------------

template <class X>
struct TokensCase {
  int64_t batch, visible, patches, width, count;
  std::vector<int32_t> host_ids, host_restore;
  Array<int32_t> ids, restore;
  Array<X> x, dx;
  Array<float> mask_token, pos, y, dy, dmask_token, selected, dselected, dall;
  Array<bf16> dx_low, dall_low;
  TokensCase(int64_t batch, int64_t visible, int64_t patches, int64_t width)
      : batch(batch), visible(visible), patches(patches), width(width), count(patches - visible), host_ids(permutations(batch, patches)),
        host_restore(inverses(host_ids, patches)), ids(host_ids), restore(host_restore), x(batch * (visible + 1) * width),
        dx(batch * (visible + 1) * width), mask_token(width), pos((patches + 1) * width), y(batch * (patches + 1) * width),
        dy(batch * (patches + 1) * width), dmask_token(width), selected(batch * count * width), dselected(batch * count * width),
        dall(batch * (patches + 1) * width), dx_low(batch * (visible + 1) * width), dall_low(batch * (patches + 1) * width) {
    x.random(1), mask_token.random(2), pos.random(3), dy.random(4), dselected.random(5);
  }
  unshuffle_args forward() const {
    return {x.operand(), mask_token.operand(), pos.operand(), restore.operand(), y.operand(), batch, visible, patches, width};
  }
  unshuffle_grad_args backward() const {
    return {dy.operand(), ids.operand(), dx.operand(), dx_low.operand(), dmask_token.operand(), batch, visible, patches, width};
  }
  select_tokens_args select() const { return {dy.operand(), ids.operand(), selected.operand(), batch, patches, visible, count, width}; }
  select_tokens_grad_args select_grad() const {
    return {dselected.operand(), restore.operand(), dall.operand(), dall_low.operand(), batch, patches, visible, count, width};
  }
};

template <class X>
bool check_tokens(int64_t batch, int64_t visible, int64_t patches, int64_t width) {
  printf("tokens [%lld, %lld of %lld, %lld], %zu-byte x\n", (long long)batch, (long long)visible, (long long)patches, (long long)width,
         sizeof(X));
  TokensCase<X> c(batch, visible, patches, width);
  const Doubles x = c.x.doubles(), mask_token = c.mask_token.doubles(), pos = c.pos.doubles(), dy = c.dy.doubles(),
                ds = c.dselected.doubles();
  Doubles y(dy.size()), dx(x.size()), dmask(size_t(width), 0.0), selected(ds.size()), dall(dy.size(), 0.0);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t <= patches; ++t) {
      const int64_t j = t == 0 ? -1 : c.host_restore[size_t(b * patches + t - 1)];  // place in the shuffled order; −1: cls
      for (int64_t i = 0; i < width; ++i) {
        const size_t at = size_t((b * (patches + 1) + t) * width + i), place = size_t((b * (visible + 1) + j + 1) * width + i);
        y[at] = (j < visible ? x[place] : mask_token[size_t(i)]) + pos[size_t(t * width + i)];
        if (j < visible) {
          dx[place] = dy[at];
        } else {
          const size_t removed = size_t((b * c.count + j - visible) * width + i);
          dmask[size_t(i)] += dy[at];
          selected[removed] = dy[at];
          dall[at] = ds[removed];
        }
      }
    }
  }
  const Workspace workspace(unshuffle_grad_workspace(c.backward()));
  Context context = workspace.context();
  unshuffle(c.forward(), context);
  unshuffle_grad(c.backward(), context);
  select_tokens(c.select(), context);
  select_tokens_grad(c.select_grad(), context);
  return check("unshuffle", c.y.doubles(), y, kToleranceF32) & check("unshuffle_grad dx", c.dx.doubles(), dx, tolerance<X>()) &
         check("unshuffle_grad dx_low", c.dx_low.doubles(), dx, kToleranceBf16) &
         check("unshuffle_grad dmask_token", c.dmask_token.doubles(), dmask, kToleranceF32) &
         check("select_tokens", c.selected.doubles(), selected, 0) & check("select_tokens_grad", c.dall.doubles(), dall, 0) &
         check("select_tokens_grad dx_low", c.dall_low.doubles(), dall, kToleranceBf16);
}

void time_tokens(int64_t batch, int64_t visible, int64_t patches, int64_t width) {
  printf("tokens [%lld, %lld of %lld, %lld], bf16 x, f32 stream\n", (long long)batch, (long long)visible, (long long)patches,
         (long long)width);
  TokensCase<bf16> c(batch, visible, patches, width);
  const Workspace workspace(unshuffle_grad_workspace(c.backward()));
  Context context = workspace.context();
  const double all = double(batch * (patches + 1) * width), kept = double(batch * (visible + 1) * width), removed = all - kept;
  print_bandwidth("unshuffle", seconds_of([&] { unshuffle(c.forward(), context); }), all * 4 + kept * 2, ceiling);
  print_bandwidth("unshuffle_grad", seconds_of([&] { unshuffle_grad(c.backward(), context); }), all * 4 + kept * 4, ceiling);
  print_bandwidth("select_tokens", seconds_of([&] { select_tokens(c.select(), context); }), removed * 8, ceiling);
  print_bandwidth("select_tokens_grad", seconds_of([&] { select_tokens_grad(c.select_grad(), context); }), removed * 4 + all * 6, ceiling);
}

// ---- Masked MSE ------------------------------------------------------------------------------------------------------------------------

template <class P>
struct MseCase {
  int64_t batch, side, channels, patch, patches, first, count, dim;
  std::vector<int32_t> host_ids;
  Array<uint8_t> images;
  Array<P> pred, dpred;
  Array<int32_t> ids;
  Array<float> scale, shift, loss;
  MseCase(int64_t batch, int64_t side, int64_t channels, int64_t patch)
      : batch(batch),
        side(side),
        channels(channels),
        patch(patch),
        patches((side / patch) * (side / patch)),
        first(patches / 4),
        count(patches - first),
        dim(patch * patch * channels),
        host_ids(permutations(batch, patches)),
        images(batch * side * side * channels),
        pred(batch * count * dim),
        dpred(batch * count * dim),
        ids(host_ids),
        scale(channels),
        shift(channels),
        loss(1) {
    images.random(1, 0.0f, 256.0f), pred.random(2), scale.random(3, 0.01f, 0.02f), shift.random(4);
  }
  masked_mse_args args() const {
    return {pred.operand(), images.operand(), ids.operand(), scale.operand(), shift.operand(), absent(), control_operand(),
            loss.operand(), dpred.operand(),  batch,         side,            side,            channels, patch,
            first,          count,            batch * count, 1};
  }
  void run(int version, const Workspace& workspace) {
    Context context = workspace.context();
    if (version == 2) return masked_mse(args(), context);
    const MseArgs<P, uint8_t> a = mse_args<P, uint8_t>(args(), context);
    const unsigned blocks = unsigned(ceil_div(batch * count, kBlockRows));
    launch("masked_mse v1", masked_mse_general_kernel<P, uint8_t>, blocks, kMseThreads, 0, context, a);
    launch("masked_mse total", mse_total_kernel, 1, kMseThreads, 0, context, a.partials, int(blocks), a.control,
           1.0 / (double(dim) * double(batch * count)), loss.data(), false);
  }
};

template <class P>
bool check_masked_mse(int64_t batch, int64_t side, int64_t channels, int64_t patch) {
  printf("masked_mse [%lld, %lld, %lld, %lld], patch %lld, %zu-byte pred\n", (long long)batch, (long long)side, (long long)side,
         (long long)channels, (long long)patch, sizeof(P));
  MseCase<P> c(batch, side, channels, patch);
  const Doubles images = c.images.doubles(), pred = c.pred.doubles(), scale = c.scale.doubles(), shift = c.shift.doubles();
  Doubles dpred(pred.size()), loss = {0}, target(size_t(c.dim));
  const double factor = 0.5 / (double(c.dim) * double(batch * c.count));
  for (int64_t row = 0; row < batch * c.count; ++row) {
    const int64_t b = row / c.count, p = c.host_ids[size_t(b * c.patches + c.first + row % c.count)], across = side / patch;
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < c.dim; ++k) {
      const int64_t channel = k % channels, column = k / channels % patch, line = k / channels / patch;
      const int64_t pixel = ((b * side + p / across * patch + line) * side + p % across * patch + column) * channels + channel;
      target[size_t(k)] = images[size_t(pixel)] * scale[size_t(channel)] + shift[size_t(channel)];
      mean += target[size_t(k)] / double(c.dim);
    }
    for (const double t : target) variance += (t - mean) * (t - mean) / double(c.dim - 1);
    for (int64_t k = 0; k < c.dim; ++k) {
      const size_t at = size_t(row * c.dim + k);
      const double d = pred[at] - (target[size_t(k)] - mean) / sqrt(variance + 1e-6);
      loss[0] += d * d * factor;
      dpred[at] = 2 * d * factor;
    }
  }
  bool ok = true;
  for (int version = 1; version <= 2; ++version) {
    printf(" version %d\n", version);
    c.loss.poison(), c.dpred.poison();
    const Workspace workspace(masked_mse_workspace(c.args()));
    c.run(version, workspace);
    ok &= check("loss", c.loss.doubles(), loss, kToleranceF32) & check("dpred", c.dpred.doubles(), dpred, tolerance<P>());
  }
  return ok;
}

void time_masked_mse(int64_t batch, int64_t side, int64_t patch) {
  printf("masked_mse [%lld, %lld, %lld, 3], patch %lld, bf16 pred, uint8 pictures\n", (long long)batch, (long long)side, (long long)side,
         (long long)patch);
  MseCase<bf16> c(batch, side, 3, patch);
  const Workspace workspace(masked_mse_workspace(c.args()));
  for (int version = 1; version <= 2; ++version) {
    print_bandwidth(("version " + std::to_string(version)).c_str(), seconds_of([&] { c.run(version, workspace); }),
                    double(batch * c.count * c.dim) * (2 + 2 + 1), ceiling);
  }
}

// ---- Optimizer -------------------------------------------------------------------------------------------------------------------------

// Version 1: one element a thread, the segment by bisection.
__global__ void adamw_by_element(const Control* control, const float* report, const Segment* segments, int segment_count,
                                 const float* grads, float* params, bf16* params_low, float* m, float* v, int64_t count,
                                 const AdamScalars scalars) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i >= count || report[3] == 0.0f) return;
  int low = 0, high = segment_count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (segments[middle].end > i) high = middle;
    else low = middle + 1;
  }
  if (low == segment_count || segments[low].begin > i) return;
  const float rate = control->lr * segments[low].lr_scale;
  const AdamStep step = {1.0f - rate * segments[low].weight_decay, rate / control->bias1, 1.0f / sqrtf(control->bias2), report[2]};
  step(scalars, grads[i], params[i], m[i], v[i]);
  params_low[i] = from_float<bf16>(params[i]);
}

struct OptimizerCase {
  int64_t count;
  std::vector<Segment> host_segments;
  Array<Segment> segments;
  Array<float> grads, loss, report, params, m, v;
  Array<bf16> params_low;
  OptimizerCase(int64_t count, int64_t segment, int64_t align)
      : count(count), host_segments(table(count, segment, align)), segments(host_segments), grads(count), loss(1), report(4), params(count),
        m(count), v(count), params_low(count) {
    grads.random(1), loss.random(2), reset();
  }
  void reset() { params.random(3), m.random(4), v.random(5, 0.1f, 1.0f), params_low.poison(); }
  // Segments of about `segment` elements that begin at multiples of `align`; every fifth place belongs to no segment.
  static std::vector<Segment> table(int64_t count, int64_t segment, int64_t align) {
    std::vector<Segment> segments;
    int64_t begin = 0;
    for (int i = 0; begin < count; ++i) {
      const int64_t end = std::min(count, round_up(begin + 1 + segment * (1 + i % 7) / 4, align));
      if (i % 5 != 4) segments.push_back({int32_t(begin), int32_t(end), i % 2 ? 0.05f : 0.0f, 0.1f * float(1 + i % 9)});
      begin = end;
    }
    return segments;
  }
  void norm(const Workspace& workspace) {
    Context context = workspace.context();
    grad_norm({grads.operand(), loss.operand(), control_operand(), report.operand(), count}, context);
  }
  size_t norm_workspace() const {
    return grad_norm_workspace({grads.operand(), loss.operand(), control_operand(), report.operand(), count});
  }
  void step(int version) {
    Context context = {};
    const adamw_args a = {control_operand(), report.operand(), {segments.data(), I32, 0}, grads.operand(),
                          params.operand(),  params_low.operand(), m.operand(), v.operand(), count, int64_t(host_segments.size()),
                          0.9, 0.95, 1e-8};
    if (version == 2) return adamw(a, context);
    launch("adamw v1", adamw_by_element, unsigned(ceil_div(count, 256)), 256, 0, context, control_on_device()->data(), report.data(),
           segments.data(), int(host_segments.size()), grads.data(), params.data(), params_low.data(), m.data(), v.data(), count,
           AdamScalars{0.9f, 0.95f, float(1 - 0.9), float(1 - 0.95), 1e-8f});
  }
};

bool check_optimizer(int64_t count, int64_t segment, int64_t align) {
  printf("optimizer, %lld elements, segments of about %lld at multiples of %lld\n", (long long)count, (long long)segment, (long long)align);
  OptimizerCase c(count, segment, align);
  const Workspace workspace(c.norm_workspace());
  c.norm(workspace);
  const Doubles grads = c.grads.doubles(), loss = c.loss.doubles();
  double squares = 0;
  for (const double g : grads) squares += g * g;
  const double norm = sqrt(squares), clip = std::min(1.0, 3.0 / (norm + 1e-6));
  bool ok = check("grad_norm report", c.report.doubles(), {loss[0], norm, clip, 1}, kToleranceF32);
  Doubles params = c.params.doubles(), m = c.m.doubles(), v = c.v.doubles();
  Doubles touched_low, got_low;
  for (const Segment& s : c.host_segments) {
    const double rate = double(1.5e-3f) * double(s.lr_scale);
    for (size_t i = size_t(s.begin); i < size_t(s.end); ++i) {
      const double g = grads[i] * clip;
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      params[i] = params[i] * (1 - rate * double(s.weight_decay)) - rate * (m[i] / 0.2) / (sqrt(v[i] / 0.1) + 1e-8);
      touched_low.push_back(params[i]);
    }
  }
  for (int version = 1; version <= 2; ++version) {
    printf(" version %d\n", version);
    c.reset();
    c.step(version);
    const Doubles low = c.params_low.doubles();
    got_low.clear();
    for (const Segment& s : c.host_segments) got_low.insert(got_low.end(), low.begin() + s.begin, low.begin() + s.end);
    ok &= check("params", c.params.doubles(), params, kToleranceF32) & check("params_low", got_low, touched_low, kToleranceBf16) &
          check("m", c.m.doubles(), m, kToleranceF32) & check("v", c.v.doubles(), v, kToleranceF32);
  }
  return ok;
}

void time_optimizer(int64_t count) {
  printf("optimizer, %lld elements, 300 segments\n", (long long)count);
  OptimizerCase c(count, count / 300, 64);
  const Workspace workspace(c.norm_workspace());
  print_bandwidth("grad_norm", seconds_of([&] { c.norm(workspace); }), double(count) * 4, ceiling);
  for (int version = 1; version <= 2; ++version) {
    print_bandwidth(("adamw, version " + std::to_string(version)).c_str(), seconds_of([&] { c.step(version); }), double(count) * 30,
                    ceiling);
  }
}

// ---- Elementwise, gather ---------------------------------------------------------------------------------------------------------------

bool check_elementwise(int64_t count) {
  printf("elementwise, %lld elements\n", (long long)count);
  Array<float> a(count), b(count), sum(count);
  Array<bf16> low(count);
  Context context = {};
  a.random(1), b.random(2);
  cast({a.operand(), low.operand(), count}, context);
  add({a.operand(), b.operand(), sum.operand(), count}, context);
  const Doubles x = a.doubles(), y = b.doubles();
  Doubles expected(x.size());
  for (size_t i = 0; i < x.size(); ++i) expected[i] = x[i] + y[i];
  return check("cast", low.doubles(), x, kToleranceBf16) & check("add", sum.doubles(), expected, kToleranceF32);
}

void time_elementwise(int64_t count) {
  printf("elementwise, %lld elements\n", (long long)count);
  Array<float> a(count), b(count), sum(count);
  Array<bf16> low(count);
  Context context = {};
  a.random(1), b.random(2);
  print_bandwidth("cast f32 to bf16", seconds_of([&] { cast({a.operand(), low.operand(), count}, context); }), double(count) * 6, ceiling);
  print_bandwidth("add f32", seconds_of([&] {
                    add({a.operand(), b.operand(), sum.operand(), count}, context);
                  }),
                  double(count) * 12, ceiling);
}

struct GatherCase {
  int64_t batch, side, patch, visible, width, patches, dim;
  std::vector<int32_t> host_ids;
  Array<uint8_t> images;
  Array<int32_t> ids;
  Array<float> scale, shift, bias, cls, pos, tokens, dw, dbias, dcls;
  Array<bf16> w, gathered, compact;
  GatherCase(int64_t batch, int64_t side, int64_t patch, int64_t width)
      : batch(batch),
        side(side),
        patch(patch),
        visible(side / patch * (side / patch) / 4),
        width(width),
        patches(side / patch * (side / patch)),
        dim(patch * patch * 3),
        host_ids(permutations(batch, patches)),
        images(batch * side * side * 3),
        ids(host_ids),
        scale(3),
        shift(3),
        bias(width),
        cls(width),
        pos((patches + 1) * width),
        tokens(batch * (visible + 1) * width),
        dw(1),
        dbias(width),
        dcls(width),
        w(1),
        gathered(batch * visible * dim),
        compact(batch * visible * width) {
    images.random(1, 0.0f, 256.0f), scale.random(2, 0.01f, 0.02f), shift.random(3), bias.random(4), cls.random(5), pos.random(6);
  }
  patch_embed_args forward() const {
    return {images.operand(), ids.operand(), scale.operand(),  shift.operand(),    w.operand(), bias.operand(), cls.operand(),
            pos.operand(),    tokens.operand(), gathered.operand(), batch, side, side, 3, patch, visible, width};
  }
  patch_embed_grad_args backward() const {
    return {gathered.operand(), tokens.operand(), dw.operand(), dbias.operand(), dcls.operand(), batch, visible, dim, width};
  }
};

bool check_gather(int64_t batch, int64_t side, int64_t patch, int64_t width) {
  printf("patch_gather [%lld, %lld, %lld, 3], patch %lld, width %lld\n", (long long)batch, (long long)side, (long long)side,
         (long long)patch, (long long)width);
  GatherCase c(batch, side, patch, width);
  const Doubles images = c.images.doubles(), scale = c.scale.doubles(), shift = c.shift.doubles(), cls = c.cls.doubles(),
                pos = c.pos.doubles();
  const Workspace workspace(patch_compact_workspace(c.backward()));
  Context context = workspace.context();
  patch_gather(c.forward(), context);
  Doubles gathered, first_rows, got_first_rows;
  const Doubles tokens = c.tokens.doubles();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t j = 0; j < c.visible; ++j) {
      const int64_t p = c.host_ids[size_t(b * c.patches + j)], across = side / patch;
      for (int64_t k = 0; k < c.dim; ++k) {
        const int64_t channel = k / (patch * patch), line = k / patch % patch, column = k % patch;
        const int64_t pixel = ((b * side + p / across * patch + line) * side + p % across * patch + column) * 3 + channel;
        gathered.push_back(images[size_t(pixel)] * scale[size_t(channel)] + shift[size_t(channel)]);
      }
    }
    for (int64_t i = 0; i < width; ++i) {
      first_rows.push_back(cls[size_t(i)] + pos[size_t(i)]);
      got_first_rows.push_back(tokens[size_t(b * (c.visible + 1) * width + i)]);
    }
  }
  bool ok = check("patches", c.gathered.doubles(), gathered, kToleranceBf16) & check("cls rows", got_first_rows, first_rows, kToleranceF32);

  c.tokens.random(9);
  const Doubles dtokens = c.tokens.doubles();
  Doubles compact, dbias(size_t(width), 0.0), dcls(size_t(width), 0.0);
  for (size_t i = 0; i < dtokens.size(); ++i) {
    const size_t column = i % size_t(width);
    if (i / size_t(width) % size_t(c.visible + 1) == 0) {
      dcls[column] += dtokens[i];
    } else {
      dbias[column] += dtokens[i];
      compact.push_back(dtokens[i]);
    }
  }
  patch_compact(c.backward(), c.compact.data(), context);
  return ok & check("compact rows", c.compact.doubles(), compact, kToleranceBf16) &
         check("dbias", c.dbias.doubles(), dbias, kToleranceF32) & check("dcls", c.dcls.doubles(), dcls, kToleranceF32);
}

void time_gather(int64_t batch, int64_t side, int64_t patch, int64_t width) {
  printf("patch_gather [%lld, %lld, %lld, 3], patch %lld, width %lld\n", (long long)batch, (long long)side, (long long)side,
         (long long)patch, (long long)width);
  GatherCase c(batch, side, patch, width);
  const Workspace workspace(patch_compact_workspace(c.backward()));
  Context context = workspace.context();
  const double values = double(batch * c.visible * c.dim), tokens = double(batch * (c.visible + 1) * width);
  print_bandwidth("patch_gather", seconds_of([&] { patch_gather(c.forward(), context); }), values * 3 + double(batch * width) * 4, ceiling);
  c.tokens.random(9);
  print_bandwidth("patch_compact", seconds_of([&] { patch_compact(c.backward(), c.compact.data(), context); }), tokens * (4 + 2), ceiling);
}

bool check_all() {
  bool ok = true;
  for (const int64_t width : {192, 384, 512, 768, 1024, 1280, 588, 35}) {
    ok &= check_layer_norm<float, bf16>(133, width) & check_layer_norm<float, float>(67, width) & check_layer_norm<bf16, bf16>(41, width);
  }
  ok &= check_layer_norm<float, bf16>(17000, 192);
  for (const int64_t patches : {1, 7, 49, 196, 256, 1024, 4096}) ok &= check_random_mask(5, patches);
  ok &= check_tokens<bf16>(9, 49, 196, 512) & check_tokens<float>(3, 5, 16, 35) & check_tokens<bf16>(2, 64, 256, 1280);
  ok &= check_masked_mse<bf16>(3, 224, 3, 16) & check_masked_mse<float>(2, 224, 3, 14) & check_masked_mse<float>(2, 96, 3, 32) &
        check_masked_mse<bf16>(2, 48, 1, 8) & check_masked_mse<bf16>(2, 50, 3, 5);
  ok &= check_optimizer(1 << 20, 3000, 64) & check_optimizer(300007, 37, 1) & check_optimizer(5, 2, 1);
  ok &= check_elementwise(100003) & check_elementwise(3);
  ok &= check_gather(3, 224, 16, 768) & check_gather(2, 224, 14, 1280) & check_gather(2, 25, 5, 35);
  return ok;
}

void time_all() {
  ceiling = copy_bandwidth();
  printf("copy of 512 MiB: %.0f GB/s, read and written together\n", ceiling * 1e-9);
  time_layer_norm(256 * 50, 768);
  time_layer_norm(256 * 197, 512);
  time_layer_norm(256 * 65, 1280);
  time_random_mask(256, 196);
  time_random_mask(256, 1024);
  time_tokens(256, 49, 196, 512);
  time_masked_mse(256, 224, 16);
  time_masked_mse(256, 224, 14);
  time_optimizer(111 << 20);
  time_elementwise(64 << 20);
  time_gather(256, 224, 16, 768);
  time_gather(256, 224, 14, 1280);
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
